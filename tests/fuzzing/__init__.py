"""What `tests/fuzz.py` is made of: mutations of values, invariants, and what is done with files, labs and loops."""
