"""Noisy captions of the drawn things: which word is wrong how often. See worlds/mistakes.py."""

from __future__ import annotations

from ..mistakes import Mistakes
from .drawings import CLASSES
from .grammar import GRAMMAR

# For some words (_OFTEN) the wrong picture is the more frequent one: no temperature or guidance repairs that.
_RARE, _OFTEN = 0.10, 0.60
_PAIRS = (  # classes that are taken for each other, the first of a pair more often than not
    *(("motorcycle", "bicycle"), ("truck", "car"), ("bus", "train"), ("boat", "airplane")),
    *(("dog", "cat"), ("horse", "zebra"), ("cow", "sheep"), ("teddy bear", "bear")),
    *(("backpack", "suitcase"), ("donut", "pizza"), ("couch", "bed"), ("laptop", "tv")),
)
_ALIKE = (  # and those that seldom are
    *(("elephant", "giraffe"), ("bird", "kite"), ("umbrella", "handbag"), ("carrot", "banana")),
    *(("apple", "sports ball"), ("sandwich", "cake"), ("broccoli", "potted plant")),
    *(("hot dog", "skateboard"), ("chair", "toilet"), ("cup", "bowl"), ("book", "cell phone")),
    *(("clock", "traffic light"), ("scissors", "tennis racket"), ("computer mouse", "toothbrush")),
)
CONFUSIONS: dict[str, tuple[str, float]] = {
    **{name: (other, _OFTEN) for name, other in _PAIRS},
    **{name: (other, _RARE) for other, name in _PAIRS},
    **{name: (other, _RARE) for pair in _ALIKE for name, other in (pair, pair[::-1])},
    "red": ("orange", _RARE),
    "orange": ("red", _OFTEN),
    "yellow": ("green", _RARE),
    "green": ("yellow", _RARE),
    "blue": ("purple", _RARE),
    "purple": ("blue", _OFTEN),
    "pink": ("white", _RARE),
    "brown": ("black", _OFTEN),
    "black": ("brown", _RARE),
    "white": ("pink", _RARE),
    "one": ("two", _RARE),
    "two": ("three", _RARE),
    "three": ("four", _OFTEN),
    "four": ("three", _RARE),
    "left of": ("right of", _OFTEN),
    "right of": ("left of", _OFTEN),
    "above": ("below", _OFTEN),
    "below": ("above", _OFTEN),
}
assert not set(CLASSES) - set(CONFUSIONS), set(CLASSES) - set(CONFUSIONS)

MISTAKES = Mistakes(GRAMMAR, CONFUSIONS)
