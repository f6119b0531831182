"""Models of the embedded worlds, trained from nothing."""
