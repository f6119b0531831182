"""The run folder: one writer, one reader; layout.py names its files."""
