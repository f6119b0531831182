"""Prompts over coloured shapes with their GenEval records, and the scenes that fulfil them. See worlds/grammar.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..grammar import INVERSE as INVERSE
from ..grammar import Grammar, arrange
from ..grammar import Record as Record
from .scene import COLORS, SHAPES, SIZE, Object, Scene

TEMPLATES = (
    *("a photo of", "a picture of", "an image of", "a drawing of", "a painting of"),
    *("an illustration of", "a sketch of", "a poster of", "a card with", "a page with"),
)
HELD_OUT_PAIRS = frozenset(
    {
        ("green", "circle"),
        ("red", "square"),
        ("purple", "triangle"),
        ("blue", "cross"),
        ("orange", "ring"),
    }
)
# One direction of each triple; its mirror image (square below circle, ...) is held out with it.
HELD_OUT_TRIPLES = frozenset(
    {
        ("circle", "above", "square"),
        ("triangle", "left of", "circle"),
        ("cross", "right of", "square"),
        ("ring", "below", "triangle"),
        ("ring", "left of", "cross"),
        ("circle", "below", "cross"),
        ("square", "right of", "triangle"),
        ("square", "below", "ring"),
    }
)

GRAMMAR = Grammar(tuple(SHAPES), tuple(COLORS), TEMPLATES, HELD_OUT_PAIRS, HELD_OUT_TRIPLES)
sample_record, prompt_set = GRAMMAR.sample_record, GRAMMAR.prompt_set
is_held_out, is_held_out_triple = GRAMMAR.is_held_out, GRAMMAR.is_held_out_triple
template_of = GRAMMAR.template_of


def records(task: str, split: str = "train") -> list[Record]:
    """Every record of a task; see `Grammar.records`."""
    return list(GRAMMAR.records(task, split))


_RADII = {1: (7.0, 11.0), 2: (6.5, 9.0), 3: (6.2, 7.6), 4: (6.2, 7.3)}
_GAP = 3.0  # pixels between boxes, so that objects stay apart after the image tokenizer


def _apart(a: Object, b: Object) -> bool:
    reach = a.radius + b.radius + _GAP
    return abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach


def draw(record: Record, rng: np.random.Generator) -> Scene:
    """A scene that fulfils a held-in record and shows nothing else.

    Raises:
        PromptError: the record names a held-out composition, which is never drawn.
    """
    one_color = rng.random() < 0.5

    def palette() -> Callable[[str], str]:
        shared = {s: GRAMMAR.any_color(s, rng) for s in SHAPES}
        return lambda shape: shared[shape] if one_color else GRAMMAR.any_color(shape, rng)

    def place(shape: str, color: str, count: int) -> Object:
        r = float(rng.uniform(*_RADII[count]))
        x, y = rng.uniform(r + 1, SIZE - r - 1, size=2).tolist()
        return Object(shape, color, x, y, r)

    return Scene(arrange(GRAMMAR, record, rng, palette=palette, place=place, apart=_apart))
