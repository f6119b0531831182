"""Finds coloured shapes in any image, by classical means: components, outline, colour. Knows no scene and no prompt.

A component of pixels that differ from the background is compared with the outline of every shape; its confidence
falls with the mismatch, so that a broken drawing is no object. A component that reaches from one side of the image
to the other is background.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...geneval import Detection
from .scene import BACKGROUND, COLORS, SHAPES, SIZE, Object, coverage

GRID = 16  # outlines are compared on a GRID x GRID raster of their bounding box
MIN_AREA = 24  # pixels; smaller components are specks
MIN_SIDE = 7  # pixels
_SURE, _LOST = 0.80, 0.55  # overlap with the best outline that gives confidence 1 and 0

_CLASSES = tuple(SHAPES)
_COLOR_NAMES = tuple(COLORS)
_PAPER = np.asarray(BACKGROUND, dtype=np.float32)
_ABSORBED = _PAPER - np.asarray(list(COLORS.values()), dtype=np.float32)  # (6, 3)
_REACH = np.linalg.norm(_ABSORBED, axis=1)
_DIRECTIONS = _ABSORBED / _REACH[:, None]
# components within an image only: neighbours share a side and never the batch axis
_STRUCTURE = np.zeros((3, 3, 3), bool)
_STRUCTURE[1] = ndimage.generate_binary_structure(2, 1)


def _raster(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask's bounding box sampled on GRID x GRID points."""
    h, w = mask.shape
    rows = ((np.arange(GRID) + 0.5) * h / GRID).astype(int)
    cols = ((np.arange(GRID) + 0.5) * w / GRID).astype(int)
    return mask[rows[:, None], cols]


@cache
def _outlines() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Reference rasters (K, GRID*GRID) and the class of each: every shape at several sizes and offsets."""
    kinds: dict[bytes, int] = {}  # without repeats
    for k, shape in enumerate(_CLASSES):
        for radius in (6.0, 7.0, 8.5, 10.5):
            shifts = (0.0, 0.25, 0.5) if radius <= 7 else (0.0, 0.5)  # these count in small shapes
            for dx, dy in itertools.product(shifts, shifts):
                mask = coverage(Object(shape, "red", SIZE / 2 + dx, SIZE / 2 + dy, radius)) >= 0.5
                box = ndimage.find_objects(mask.astype(np.int8))[0]
                kinds.setdefault(_raster(mask[box]).tobytes(), k)
    rasters = np.frombuffer(b"".join(kinds), dtype=np.bool_).reshape(len(kinds), -1)
    return rasters.astype(np.float32), np.asarray(list(kinds.values()), dtype=np.int64)


def _foreground(images: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Pixels that are at least half object (N, h, w), and each pixel's nearest colour (N, h, w)."""
    absorbed = _PAPER - images
    along = absorbed @ _DIRECTIONS.T
    color = along.argmax(-1)
    strength = np.take_along_axis(along, color[..., None], -1)[..., 0] / _REACH[color]
    return strength >= 0.5, color


def _confidence(overlap: float, box: tuple[int, int], area: int, purity: float) -> float:
    """In [0, 1]: how well the outline fits, times how square its box is, times how pure its colour is."""
    h, w = box
    if area < MIN_AREA or min(h, w) < MIN_SIDE:
        return 0.0
    fit = (overlap - _LOST) / (_SURE - _LOST)
    square = 1.5 - 2.0 * abs(np.log(w / h))  # 1 up to a ratio of 1.28, 0 from 2.1 on
    return float(np.prod(np.clip([fit, square, (purity - 0.4) / 0.4], 0.0, 1.0)))


def detect(
    images: NDArray, specs: object = None, *, masks: bool = False
) -> list[dict[str, list[Detection]]]:
    """Finds the objects of each image.

    Args:
        images: (N, h, w, 3), uint8 or floats in [0, 1].
        specs: what other detectors of an evaluation look for; this one always looks for everything.
        masks: whether detections carry their (h, w) mask.

    Returns:
        for each image {class: detections}, boxes in pixels, colours out of COLORS.
    """
    pixels = images.astype(np.float32)
    if images.dtype != np.uint8:
        pixels *= 255.0
    foreground, colors = _foreground(pixels)
    labels, count = ndimage.label(foreground, structure=_STRUCTURE)
    found: list[dict[str, list[Detection]]] = [{} for _ in range(len(images))]
    if not count:
        return found
    h, w = foreground.shape[1:]
    parts = []
    for n, place in enumerate(ndimage.find_objects(labels, count), start=1):
        part = labels[place][0] == n
        if part.sum() >= MIN_AREA and part.shape[0] < h and part.shape[1] < w:
            parts.append((place, part))
    if not parts:
        return found
    rasters = np.asarray([_raster(part).ravel() for _, part in parts], dtype=np.float32)
    outlines, classes = _outlines()
    common = rasters @ outlines.T
    overlap = common / (rasters.sum(1)[:, None] + outlines.sum(1)[None] - common)
    best = overlap.argmax(1)
    for (place, part), k, fits in zip(parts, best, overlap.max(1), strict=True):
        image, rows, cols = place
        votes = np.bincount(colors[place][0][part], minlength=len(_COLOR_NAMES))
        area = int(part.sum())
        confidence = _confidence(float(fits), part.shape, area, votes.max() / area)
        if confidence == 0.0:
            continue
        mask = None
        if masks:
            mask = np.zeros(foreground.shape[1:], bool)
            mask[rows, cols] = part
        box = (float(cols.start), float(rows.start), float(cols.stop), float(rows.stop))
        detection = Detection(box, confidence, _COLOR_NAMES[int(votes.argmax())], mask)
        found[image.start].setdefault(_CLASSES[classes[k]], []).append(detection)
    return found


def classes() -> Sequence[str]:
    """The class names that `detect` knows."""
    return _CLASSES
