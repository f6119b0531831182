"""How well a model does what its prompts ask."""
