"""What became of a run and why: the state line, early warnings, the autopsy of a NaN, remedies that are tried."""
