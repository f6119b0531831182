"""Whether credit lies where the reward comes from."""
