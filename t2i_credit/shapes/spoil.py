"""Deliberately spoiled pictures, with a known strength: what an aesthetic reward is taught and tested on. Scores nothing.

Images are (h, w, 3) uint8. Strength 0 changes nothing; 1 leaves little of the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.uint8]
_MOST_BLUR = 3.5  # pixels, standard deviation
_MOST_NOISE = 90.0  # levels, standard deviation
_MOST_CAST = 0.75  # share of the foreign colour
_MOST_SPECKS = 45


def soften(image: Image, sigma: float) -> Image:
    """Gaussian blur with a standard deviation in pixels: at up to half a pixel, what an image tokenizer does."""
    soft = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")
    return _to_levels(soft)


def _blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    return soften(image, _MOST_BLUR * strength)


def _noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    grain = rng.normal(0.0, _MOST_NOISE * strength, size=image.shape)
    return _to_levels(image + grain)


def _cast(image: Image, strength: float, rng: np.random.Generator) -> Image:
    foreign = np.zeros(3)
    foreign[rng.permutation(3)[: rng.integers(1, 3)]] = 255.0  # one or two channels: never grey
    share = _MOST_CAST * strength
    return _to_levels((1 - share) * image + share * foreign)


def _clutter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    drawn = image.copy()
    h, w = image.shape[:2]
    for _ in range(round(_MOST_SPECKS * strength)):
        y, x = rng.integers(h), rng.integers(w)
        tall, wide = rng.integers(1, 6, size=2)
        drawn[y : y + tall, x : x + wide] = rng.integers(0, 256, size=3)
    return drawn


SPOILS: dict[str, Callable[[Image, float, np.random.Generator], Image]] = {
    "blur": _blur,
    "noise": _noise,
    "cast": _cast,
    "clutter": _clutter,
}


def spoil(image: Image, kind: str, strength: float, rng: np.random.Generator) -> Image:
    """The image, spoiled.

    Args:
        image: (h, w, 3) uint8, left as it is.
        kind: a name out of SPOILS.
        strength: in [0, 1].
        rng: of grain, colour and places.

    Returns:
        (h, w, 3) uint8.
    """
    assert 0.0 <= strength <= 1.0, strength
    return SPOILS[kind](image, strength, rng)


def _to_levels(values: NDArray[np.floating]) -> Image:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
