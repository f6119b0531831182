"""The embedded world: coloured shapes with GenEval's six tasks (grammar, renderer, detector). Needs no download."""
