"""Worlds that need no download: shapes to draw, arithmetic to write, and generators trained on them from nothing."""
