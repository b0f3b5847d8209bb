"""What a run has shown, in memory and in files: records, maps, autosaves, images of one's own. Numpy, no torch."""
