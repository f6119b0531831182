"""From numbers to colours: palettes, ranges, maps at the size of a picture, overlays. Knows no sample.

Shapes: token maps (H, W) = (rows, columns), images (h, w); sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

    Array = np.ndarray | Tensor | Sequence[Any]

CREDIT, CONTRAST, ADVANTAGE = "magma", "PuOr", "RdBu"  # matplotlib's names


def robust_limit(values: Array, outlier_percent: float = 2.0) -> float:
    """The magnitude below which (100 - outlier_percent)% of the summed magnitude lies: a symmetric
    colour scale that single outliers do not wash out. As in captum (`_cumulative_sum_threshold`). 0
    for all-zero values."""
    magnitudes = np.sort(np.abs(plain_array(values)).ravel())
    if not magnitudes.size or magnitudes[-1] == 0:
        return 0.0
    sums = np.cumsum(magnitudes, dtype=np.float64)
    place = int(np.searchsorted(sums, sums[-1] * (1 - outlier_percent / 100)))
    return float(magnitudes[min(place, magnitudes.size - 1)])


def diverging(values: Array, limit: float, palette: str = ADVANTAGE) -> np.ndarray:
    """(..., 3) uint8: -limit..limit on a diverging palette, 0 exactly neutral; beyond the limit,
    its end colours."""
    values = plain_array(values)
    scaled = values / limit if limit > 0 else np.zeros_like(values)
    return _colours(palette)[np.rint((np.clip(scaled, -1, 1) + 1) * 128).astype(int)]


def sequential(values: Array, lo: float, hi: float, palette: str = CREDIT) -> np.ndarray:
    """(..., 3) uint8: lo..hi from dark to bright on a perceptually even palette."""
    scaled = (
        (plain_array(values) - lo) / (hi - lo) if hi > lo else np.zeros_like(plain_array(values))
    )
    return _colours(palette)[np.rint(np.clip(scaled, 0, 1) * 256).astype(int)]


def upsample(values: Array, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """A map (H, W) at `size` = (height, width): one flat rectangle per token, or `smooth` =
    bicubic, within the map's own range."""
    values = plain_array(values)
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    grown = np.asarray(Image.fromarray(values).resize((size[1], size[0]), how))
    return np.clip(grown, values.min(), values.max())


def overlay(image: Image.Image, heat_rgb: np.ndarray, alpha: float | np.ndarray) -> Image.Image:
    """Lays colours (h, w, 3) over an image of that size, with opacity `alpha` in [0, 1], one number
    or (h, w)."""
    below = np.asarray(image.convert("RGB"), dtype=np.float32)
    assert below.shape == heat_rgb.shape, (below.shape, heat_rgb.shape)
    opacity = np.clip(np.asarray(alpha, dtype=np.float32), 0, 1)
    opacity = opacity[..., None] if opacity.ndim else opacity
    return Image.fromarray(np.rint(below + (heat_rgb - below) * opacity).astype(np.uint8))


def plain_array(values: Array) -> np.ndarray:
    """A float32 copy; what is not finite becomes 0, the neutral value."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.nan_to_num(np.array(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


@cache
def _colours(palette: str) -> np.ndarray:
    """(257, 3) uint8: an odd number, so that a diverging palette has a middle."""
    import matplotlib

    shades = matplotlib.colormaps[palette].resampled(257)(np.linspace(0, 1, 257))
    return np.rint(shades[:, :3] * 255).astype(np.uint8)
