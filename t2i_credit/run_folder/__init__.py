"""The run folder: one writer, one reader, and nobody else builds its paths."""
