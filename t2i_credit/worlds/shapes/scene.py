"""Scenes of coloured shapes and their renderer, which knows each object's mask. Chooses no scene: see grammar.py.

Images are (SIZE, SIZE, 3) uint8; coordinates are pixels, x to the right and y down, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 48
BACKGROUND = (245, 243, 238)
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 25, 35),
    "orange": (255, 130, 20),
    "yellow": (255, 214, 30),
    "green": (35, 150, 60),
    "blue": (35, 80, 220),
    "purple": (140, 40, 170),
}

Field = NDArray[np.floating]  # float32; numpy's types make float64 of float32 times float
_YY, _XX = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def _triangle(x: Field, y: Field, r: float) -> Field:
    # base below, apex above; the slanted sides fall 2 units for each unit of width
    slanted = (2 * abs(x) - (y + 0.95 * r)) / np.sqrt(5.0, dtype=np.float32)
    return np.maximum(slanted, y - 0.95 * r)


def _cross(x: Field, y: Field, r: float) -> Field:
    arm = 0.36 * r
    upright = np.maximum(abs(x) - arm, abs(y) - r)
    level = np.maximum(abs(x) - r, abs(y) - arm)
    return np.minimum(upright, level)


# In pixels: 0 on the outline and below 0 inside, for (x, y) from the centre and a half-size r.
SHAPES: dict[str, Callable[[Field, Field, float], Field]] = {
    "circle": lambda x, y, r: np.hypot(x, y) - r,
    "square": lambda x, y, r: np.maximum(abs(x), abs(y)) - 0.88 * r,
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda x, y, r: abs(np.hypot(x, y) - 0.74 * r) - 0.26 * r,
}


@dataclass(frozen=True)
class Object:
    """One object: a name out of SHAPES, a name out of COLORS, its centre and half-size in pixels."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """Its class."""
        return self.shape

    @property
    def shown(self) -> str:
        """The colour that it is seen in."""
        return self.color

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The square of half-size `radius` about the centre: (x0, y0, x1, y1) in pixels."""
        r = self.radius
        return (self.x - r, self.y - r, self.x + r, self.y + r)


@dataclass(frozen=True)
class Scene:
    """What is drawn: objects that do not touch."""

    objects: tuple[Object, ...]


def coverage(obj: Object) -> Field:
    """The share of each pixel that the object covers, (SIZE, SIZE) in [0, 1]."""
    distance = SHAPES[obj.shape](_XX - obj.x, _YY - obj.y, obj.radius)
    return np.clip(0.5 - distance, 0.0, 1.0)


def render(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws a scene.

    Returns:
        the image (SIZE, SIZE, 3) uint8 and one mask per object, (N, SIZE, SIZE) bool: True where the object
        covers at least half of the pixel.
    """
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = BACKGROUND
    masks = np.zeros((len(scene.objects), SIZE, SIZE), bool)
    for n, obj in enumerate(scene.objects):
        alpha = coverage(obj)
        image += alpha[..., None] * (np.asarray(COLORS[obj.color], dtype=np.float32) - image)
        masks[n] = alpha >= 0.5
    return np.round(image).astype(np.uint8), masks
