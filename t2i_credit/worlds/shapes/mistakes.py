"""Noisy captions of coloured shapes: which word is wrong how often. See worlds/mistakes.py."""

from __future__ import annotations

from ..mistakes import Mistakes
from .grammar import GRAMMAR

# How often a caption's word is wrong about the picture, and the word that the picture then shows most often.
# For some words (_OFTEN) the wrong picture is the more frequent one: no temperature or guidance repairs that.
_RARE, _OFTEN = 0.10, 0.60
CONFUSIONS: dict[str, tuple[str, float]] = {
    "red": ("orange", _RARE),
    "orange": ("red", _OFTEN),
    "yellow": ("green", _RARE),
    "green": ("yellow", _RARE),
    "blue": ("purple", _RARE),
    "purple": ("blue", _RARE),
    "circle": ("ring", _RARE),
    "ring": ("circle", _OFTEN),
    "square": ("cross", _RARE),
    "cross": ("square", _OFTEN),
    "triangle": ("square", _RARE),
    "one": ("two", _RARE),
    "two": ("three", _RARE),
    "three": ("four", _OFTEN),
    "four": ("three", _RARE),
    "left of": ("right of", _OFTEN),
    "right of": ("left of", _OFTEN),
    "above": ("below", _OFTEN),
    "below": ("above", _OFTEN),
}

MISTAKES = Mistakes(GRAMMAR, CONFUSIONS)
neighbour, shown_record = MISTAKES.neighbour, MISTAKES.shown_record
