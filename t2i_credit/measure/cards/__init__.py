"""The embedded models: made, measured, described."""
