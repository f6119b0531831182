"""From prompts to sampled token grids with their log-probs."""
