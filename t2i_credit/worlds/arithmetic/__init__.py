"""The embedded text world: multi-step arithmetic with worked chains and an exact checker. Needs no download."""
