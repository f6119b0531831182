"""Noisy captions of the drawn things: which word is wrong how often. See worlds/mistakes.py."""

from __future__ import annotations

from ..mistakes import COMMON, OFTEN, RARE, Mistakes
from .drawings import CLASSES
from .grammar import GRAMMAR

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
    **{name: (other, OFTEN) for name, other in _PAIRS},
    **{name: (other, RARE) for other, name in _PAIRS},
    **{name: (other, RARE) for pair in _ALIKE for name, other in (pair, pair[::-1])},
    "red": ("orange", RARE),
    "orange": ("red", OFTEN),
    "yellow": ("green", RARE),
    "green": ("yellow", RARE),
    "blue": ("purple", RARE),
    "purple": ("blue", OFTEN),
    "pink": ("white", RARE),
    "brown": ("black", OFTEN),
    "black": ("brown", RARE),
    "white": ("pink", RARE),
    **COMMON,
}
assert not set(CLASSES) - set(CONFUSIONS), set(CLASSES) - set(CONFUSIONS)

MISTAKES = Mistakes(GRAMMAR, CONFUSIONS)
