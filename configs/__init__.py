"""Imported as `t2i_credit.configs`, from this top-level folder: the shipped recipes, no code."""
