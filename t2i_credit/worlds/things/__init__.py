"""The embedded world of things: GenEval's own class names, drawn by emoji, with its six tasks. Needs no download."""
