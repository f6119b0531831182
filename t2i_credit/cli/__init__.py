"""The command line: verbs over api, measure and text. Computes nothing; heavy imports happen inside the commands."""

from .main import main

__all__ = ["main"]
