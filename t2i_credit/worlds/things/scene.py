"""Scenes of drawn things and their renderer, which knows each object's mask. Chooses no scene: see grammar.py.

Images are (SIZE, SIZE, 3) uint8; coordinates are pixels, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .drawings import DRAWINGS, SIDE, sprite

SIZE = 96
GROUNDS = (
    *((181, 187, 181), (156, 184, 206), (200, 184, 150), (162, 192, 172)),
    *((180, 172, 202), (206, 176, 173)),
)
ANGLES = (-6, 0, 6)  # degrees
_FALL = 24  # levels by which the foot of a shaded ground is darker than its head


@dataclass(frozen=True)
class Object:
    """One object: a place in DRAWINGS, a name out of COLORS or None (as it is drawn), its left and top edge in pixels,
    its size (the longer side of the upright drawing, pixels), its turn (a value of ANGLES), and whether it is mirrored after that."""

    drawing: int
    color: str | None
    x: int
    y: int
    size: int
    angle: int = 0
    mirrored: bool = False

    @property
    def name(self) -> str:
        """Its class."""
        return DRAWINGS[self.drawing].name

    @property
    def shown(self) -> str | None:
        """The colour that it is seen in: that of the drawing itself where none is given."""
        return self.color or DRAWINGS[self.drawing].own

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What it covers: (x0, y0, x1, y1) in pixels."""
        w, h = extent(self.drawing, self.size, self.angle)
        return (self.x, self.y, self.x + w, self.y + h)


@dataclass(frozen=True)
class Scene:
    """What is drawn: objects, later ones in front, on a ground (a place in GROUNDS), shaded towards its foot or plain."""

    objects: tuple[Object, ...]
    ground: int = 0
    shaded: bool = False


@cache
def _turned(drawing: int, color: str | None, angle: int) -> Image.Image:
    """A drawing at SIDE pixels, turned and cropped; mode RGBa (colours multiplied by the coverage)."""
    levels = np.round(sprite(drawing, color) * 255).astype(np.uint8)
    image = Image.frombuffer("RGBa", (SIDE, SIDE), levels.tobytes(), "raw", "RGBa", 0, 1)
    if angle:
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    box = image.getchannel("a").point(lambda a: 255 * (a > 127)).getbbox()
    return image.crop(box)


@cache
def extent(drawing: int, size: int, angle: int) -> tuple[int, int]:
    """Width and height in pixels of a drawing at a size and a turn."""
    w, h = _turned(drawing, None, angle).size
    return max(1, round(w * size / SIDE)), max(1, round(h * size / SIDE))


def _drawn(obj: Object) -> NDArray[np.float32]:
    """(h, w, 4) in 0..255, colours multiplied by the coverage."""
    x0, y0, x1, y1 = obj.box
    image = _turned(obj.drawing, obj.color, obj.angle).resize(
        (x1 - x0, y1 - y0), Image.Resampling.HAMMING
    )
    levels = np.asarray(image, dtype=np.float32)
    return levels[:, ::-1] if obj.mirrored else levels


@cache
def _ground(index: int, shaded: bool) -> NDArray[np.float32]:
    fall = np.linspace(0, _FALL if shaded else 0, SIZE, dtype=np.float32)
    plain = np.asarray(GROUNDS[index], dtype=np.float32)
    return np.broadcast_to((plain - fall[:, None])[:, None], (SIZE, SIZE, 3))


def render(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws a scene.

    Returns:
        the image (SIZE, SIZE, 3) uint8 and one mask per object, (N, SIZE, SIZE) bool: True where the object covers at
        least half of the pixel and no later one does.
    """
    image = _ground(scene.ground, scene.shaded).copy()
    masks = np.zeros((len(scene.objects), SIZE, SIZE), bool)
    for n, obj in enumerate(scene.objects):
        x0, y0, x1, y1 = obj.box
        part = _drawn(obj)
        alpha = part[..., 3:] / 255
        place = np.s_[y0:y1, x0:x1]
        image[place] = image[place] * (1 - alpha) + part[..., :3]
        covered = alpha[..., 0] >= 0.5
        masks[(slice(n), *place)] &= ~covered
        masks[(n, *place)] = covered
    return np.clip(np.round(image), 0, 255).astype(np.uint8), masks
