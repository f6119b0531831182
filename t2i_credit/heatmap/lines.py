"""A picture as lines, to be drawn over a map: the reader sees the object, and the colours stay what they are. No line runs
through the middle of a token, where its colour is read.

Shapes: images (h, w) pixels, grids (H, W) tokens, levels (h, w): 0 = no line, 1 to 3 = from faint to strong.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from .colours import DARK_INK, LIGHT, LIGHT_INK

STRENGTHS = (0.0, 0.35, 0.6, 0.85)  # opacity of a level
LIGHT_AND_COLOUR = ((0.299, 0.587, 0.114), (0.5, 0.0, -0.5))  # ITU-R BT.601; red against blue
FAINT, MIDDLING, STRONG = 0.1, 0.22, 0.45  # of the picture's strongest edges: where a level begins
LEAST_STEP = 0.8  # of 255, from pixel to pixel: what is fainter is noise
SHORTEST = 0.06  # of the longest side: shorter lines are left out
MOST = 0.08  # share of the pixels that lines take at most
FEW = 0.02  # share of the pixels below which lines are twice as wide
FREE, LARGEST_FREE = (
    0.1,
    4,
)  # of a token's shorter side, pixels: the radius around its middle that stays free


def picture_lines(image: Image.Image, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 levels of the edges of light or colour, at `size` = (w, h)."""
    from scipy import ndimage

    if min(size) < 2:  # without an inside
        return np.zeros(size[::-1], np.uint8)
    grown = max(1.0, max(size) / max(image.size))
    resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    mixed = np.asarray(resized, np.float32) @ np.array(LIGHT_AND_COLOUR, np.float32).T
    strength = _ridges(
        [ndimage.gaussian_filter(mixed[..., c], 0.7 + 0.5 * grown, truncate=3) for c in (0, 1)]
    )
    found = strength[strength > LEAST_STEP]
    if not found.size:
        return np.zeros(strength.shape, np.uint8)
    top = np.percentile(found, 99.5)
    many = 1 - MOST * strength.size / found.size
    least = max(LEAST_STEP, FAINT * top, np.quantile(found, many) if many > 0 else 0.0)
    levels = 1 + (strength >= MIDDLING * top).view(np.uint8) + (strength >= STRONG * top)
    levels[strength < least] = 0
    # a line is kept whole where it is long and strong somewhere, and left out where not
    names, count = ndimage.label(levels, np.ones((3, 3)))
    long = np.bincount(names.ravel(), minlength=count + 1) >= SHORTEST * max(size)
    strong = np.bincount(names[levels > 1], minlength=count + 1) > 0
    levels[~(long & strong)[names]] = 0
    if np.count_nonzero(levels) < FEW * levels.size:
        levels[:, 1:] = np.maximum(levels[:, 1:], levels[:, :-1])
        levels[1:] = np.maximum(levels[1:], levels[:-1])
    levels[_middles(tuple(grid), tuple(size))] = 0
    return levels


def draw_lines(colours: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Lines over colours (h, w, 3) uint8: dark on light ones, light on dark ones."""
    light = colours @ np.array([0.299, 0.587, 0.114]) > LIGHT
    ink = np.where(light[..., None], DARK_INK, LIGHT_INK)
    opacity = np.array(STRENGTHS)[levels][..., None]
    return np.rint(colours + (ink - colours.astype(float)) * opacity).astype(np.uint8)


def _ridges(channels: list[np.ndarray]) -> np.ndarray:
    """(h, w): the change from pixel to pixel where it is largest along its own direction, elsewhere 0."""
    xx, yy, xy = (np.zeros_like(channels[0]) for _ in range(3))
    for channel in channels:
        down, right = np.zeros_like(channel), np.zeros_like(channel)
        np.subtract(channel[2:], channel[:-2], out=down[1:-1])
        np.subtract(channel[:, 2:], channel[:, :-2], out=right[:, 1:-1])
        xx, yy, xy = xx + right * right, yy + down * down, xy + right * down
    across, slanted = xx - yy, 2 * xy
    change = np.sqrt((xx + yy + np.sqrt(across * across + slanted * slanted)) / 8)
    padded = np.pad(change, 1)
    height, width = change.shape

    def shifted(y: int, x: int) -> np.ndarray:
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    highest = np.zeros(change.shape, bool)
    for there, (y, x) in (
        (across >= np.abs(slanted), (0, 1)),
        (-across >= np.abs(slanted), (1, 0)),
        (slanted >= np.abs(across), (1, 1)),
        (-slanted >= np.abs(across), (-1, 1)),
    ):
        highest |= there & (change > shifted(-y, -x)) & (change >= shifted(y, x))
    return np.where(highest, change, 0)


@lru_cache(64)
def _middles(grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: around the middle of a token."""
    away = []
    for tokens, pixels in zip(grid, size[::-1], strict=True):
        place = (np.arange(pixels) + 0.5) * tokens / pixels
        away.append((place % 1 - 0.5) * pixels / tokens)
    side = min(size[1] / grid[0], size[0] / grid[1])
    radius = max(1.5, min(FREE * side, LARGEST_FREE))
    return np.hypot(away[0][:, None], away[1][None]) <= radius
