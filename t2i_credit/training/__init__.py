"""The loop, in the order of the data; `trainer` is where to begin."""
