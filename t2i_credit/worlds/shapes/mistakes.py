"""Noisy captions of coloured shapes: which word is wrong how often. See worlds/mistakes.py."""

from __future__ import annotations

from ..mistakes import COMMON, OFTEN, RARE, Mistakes
from .grammar import GRAMMAR

CONFUSIONS: dict[str, tuple[str, float]] = {
    "red": ("orange", RARE),
    "orange": ("red", OFTEN),
    "yellow": ("green", RARE),
    "green": ("yellow", RARE),
    "blue": ("purple", RARE),
    "purple": ("blue", RARE),
    "circle": ("ring", RARE),
    "ring": ("circle", OFTEN),
    "square": ("cross", RARE),
    "cross": ("square", OFTEN),
    "triangle": ("square", RARE),
    **COMMON,
}

MISTAKES = Mistakes(GRAMMAR, CONFUSIONS)
neighbour, shown_record = MISTAKES.neighbour, MISTAKES.shown_record
