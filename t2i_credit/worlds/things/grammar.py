"""Prompts over the drawn things with their GenEval records, and the scenes that fulfil them. See worlds/grammar.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ..grammar import INVERSE, Grammar, Record, arrange, leaks
from .drawings import CLASSES, COLORS, DRAWINGS
from .scene import ANGLES, GROUNDS, SIZE, Object, Scene, extent

TEMPLATES = ("a photo of", "a picture of", "an image of", "a drawing of")
_MOST = 1000  # prompts of a task in a set that names no number


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    """One colour of each class, none that a drawing of it has as it is; each colour of some classes."""
    colors, found = tuple(COLORS), set()
    for k, name in enumerate(CLASSES):
        own = {one.own for one in DRAWINGS if one.name == name}
        free = [colors[(3 * k + step) % len(colors)] for step in range(len(colors))]
        found.add((next(color for color in free if color not in own), name))
    return frozenset(found)


def _held_out_triples() -> frozenset[tuple[str, str, str]]:
    """One relation of every sixth pair of classes."""
    relations = tuple(INVERSE)
    return frozenset(
        (CLASSES[i], relations[(i + j) % 4], CLASSES[j])
        for i, j in itertools.combinations(range(len(CLASSES)), 2)
        if (5 * i + 3 * j) % 6 == 0
    )


GRAMMAR = Grammar(CLASSES, tuple(COLORS), TEMPLATES, _held_out_pairs(), _held_out_triples(), _MOST)

_OF_CLASS = {
    name: tuple(i for i, one in enumerate(DRAWINGS) if one.name == name) for name in CLASSES
}
_SIZES = {1: (44, 64), 2: (36, 44), 3: (32, 36), 4: (28, 36)}  # pixels
_STEP = 4  # pixels; places and sizes are multiples, which spares the image tokenizer most edges
_GAP = 3  # pixels between boxes, so that objects stay apart after the image tokenizer
_OVERLAP = 5  # pixels by which boxes may overlap where they may
_OVERLAPPING = 0.1  # share of the scenes of two objects whose boxes may
_TURNED, _SHADED, _PAINTED = 0.2, 0.3, 0.25  # shares of objects, scenes, objects without a colour


def draw(record: Record, rng: np.random.Generator) -> Scene:
    """A scene that fulfils a held-in record and shows nothing else.

    Raises:
        PromptError: the record names a held-out composition, which is never drawn.
    """
    ground, shaded = int(rng.integers(len(GROUNDS))), bool(rng.random() < _SHADED)
    gap = -_OVERLAP if rng.random() < _OVERLAPPING else _GAP

    def palette() -> Callable[[str], str | None]:
        def free(name: str) -> str | None:
            return GRAMMAR.any_color(name, rng) if rng.random() < _PAINTED else None

        return free

    def place(name: str, color: str | None, count: int) -> Object:
        views = _OF_CLASS[name]
        drawing = views[rng.integers(len(views))]
        low, high = _SIZES[count]
        size = int(rng.integers(low // _STEP, high // _STEP + 1)) * _STEP
        angle = int(ANGLES[rng.integers(len(ANGLES))]) if rng.random() < _TURNED else 0
        mirrored = bool(DRAWINGS[drawing].faces and rng.random() < 0.5)
        w, h = extent(drawing, size, angle)
        x, y = (int(rng.integers((SIZE - side) // _STEP + 1)) * _STEP for side in (w, h))
        return Object(drawing, color, x, y, size, angle, mirrored)

    def apart(a: Object, b: Object) -> bool:
        return _clear(a, b, gap if len(record["include"]) == 2 else _GAP)

    objects = arrange(GRAMMAR, record, rng, palette=palette, place=place, apart=apart)
    return Scene(objects, ground, shaded)


def crowd(rng: np.random.Generator) -> Scene:
    """A scene of six things for the image tokenizer, half of them in some colour, so that less of it is ground."""
    across, down = SIZE // 3, SIZE // 2
    while True:
        placed = []
        for cell in range(6):
            drawing = int(rng.integers(len(DRAWINGS)))
            name = DRAWINGS[drawing].name
            color = GRAMMAR.any_color(name, rng) if rng.random() < 0.5 else None
            size = 28
            x, y = (
                int(rng.integers((side - size) // _STEP + 1)) * _STEP for side in (across, down)
            )
            x, y = x + cell % 3 * across, y + cell // 3 * down
            mirrored = bool(DRAWINGS[drawing].faces and rng.random() < 0.5)
            placed.append(Object(drawing, color, x, y, size, 0, mirrored))
        if not leaks(GRAMMAR, placed):
            return Scene(tuple(placed), int(rng.integers(len(GROUNDS))), bool(rng.random() < 0.5))


def _clear(a: Object, b: Object, gap: int) -> bool:
    """Whether the boxes are at least `gap` pixels apart on an axis; below 0 they may overlap by so much."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.box, b.box
    return max(bx0 - ax1, ax0 - bx1) >= gap or max(by0 - ay1, ay0 - by1) >= gap
