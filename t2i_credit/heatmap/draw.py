"""From numbers to colours, and drawing: palettes, maps at the size of a picture, frames, bars, cells. Knows no sample.

Shapes: token maps (H, W) = (rows, columns), images (h, w); sizes of maps are (height, width). Places and sizes of what is
drawn are in pixels, and PIL's sizes (width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from .lettering import write

if TYPE_CHECKING:
    from torch import Tensor

    Array = np.ndarray | Tensor | Sequence[Any]

CREDIT, CONTRAST, ADVANTAGE = "magma", "PuOr", "RdBu"  # matplotlib's names

PAPER, QUIET, HAIRLINE, GOLD = "#fcfbf9", "#747b8a", "#d8d6d0", "#a87908"
CELL = 288  # pixels
NARROWEST = 216  # pixels that a colour bar and its labels need


@dataclass(frozen=True)
class Bar:
    """A colour bar: its colours (256, 3) from left to right, and labels at fractions of its
    width."""

    colours: np.ndarray
    labels: tuple[tuple[float, str], ...]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """One picture of a row with its title above and its colour bar below."""

    title: str
    subtitle: str
    picture: Image.Image
    bar: Bar | None = None

    def draw(self, canvas: Image.Image, x: int, y: int, room: int) -> None:
        """Draws it with its top left corner at (x, y), the bar at most `room` wide."""
        write(canvas, (x, y), self.title, 17, bold=True)
        write(canvas, (x, y + 25), self.subtitle, 13, QUIET)
        paste_framed(canvas, self.picture, x, y + 54)
        if self.bar:
            width = min(max(self.picture.width, NARROWEST), room)
            draw_bar(canvas, self.bar, x, y + 54 + self.picture.height + 16, width)


def display(image: Image.Image, longest: int = CELL) -> Image.Image:
    """The image at about `longest` pixels: small ones by a whole factor with crisp pixels, large
    ones resampled."""
    image = image.convert("RGB")
    side = max(image.size)
    factor = max(1, round(longest / side))
    if side > longest:
        size = tuple(max(1, round(length * longest / side)) for length in image.size)
        return image.resize(size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def token_map(colours: np.ndarray, picture: Image.Image) -> Image.Image:
    """Colours (H, W, 3) at the picture's size, with a thin gap between tokens large enough
    for one."""
    height, width = colours.shape[:2]
    grown = Image.fromarray(colours).resize(picture.size, Image.Resampling.NEAREST)
    if min(picture.width / width, picture.height / height) >= 10:
        pen = ImageDraw.Draw(grown)
        for column in range(1, width):
            x = round(column * picture.width / width)
            pen.line([(x, 0), (x, picture.height)], PAPER)
        for row in range(1, height):
            y = round(row * picture.height / height)
            pen.line([(0, y), (picture.width, y)], PAPER)
    return grown


def diverging_bar(limit: float, palette: str, ends: tuple[str, str], clipped: bool) -> Bar:
    """The bar of -limit..limit; `ends` says what low and high mean, `clipped` that values lie beyond."""
    colours = diverging(np.linspace(-limit, limit, 256), limit or 1.0, palette)
    low, high = (
        ("\N{LESS-THAN OR EQUAL TO} ", "\N{GREATER-THAN OR EQUAL TO} ") if clipped else ("", "")
    )
    labels = ((0.0, low + format_signed(-limit)), (0.5, "0"), (1.0, high + format_signed(limit)))
    return Bar(colours, labels if limit else ((0.5, "0"),), ends)


def draw_bar(canvas: Image.Image, bar: Bar, x: int, y: int, width: int) -> None:
    """The bar with its top left corner at (x, y), labels and meanings below it."""
    strip = Image.fromarray(bar.colours[None]).resize((width, 10), Image.Resampling.BILINEAR)
    paste_framed(canvas, strip, x, y)
    pen = ImageDraw.Draw(canvas)
    for fraction, label in bar.labels:
        place = x + round(fraction * (width - 1))
        pen.line([(place, y + 10), (place, y + 14)], QUIET)
        anchor = {0.0: "la", 1.0: "ra"}.get(fraction, "ma")
        write(canvas, (place, y + 17), label, 13, anchor=anchor)
    for place, end, anchor in zip((x, x + width - 1), bar.ends, ("la", "ra"), strict=True):
        write(canvas, (place, y + 36), end, 12, QUIET, anchor=anchor)


def paste_framed(canvas: Image.Image, picture: Image.Image, x: int, y: int) -> None:
    """The picture at (x, y) inside a hairline."""
    canvas.paste(picture, (x, y))
    box = [x - 1, y - 1, x + picture.width, y + picture.height]
    ImageDraw.Draw(canvas).rectangle(box, outline=HAIRLINE)


def draw_star(canvas: Image.Image, x: int, y: int, radius: int) -> None:
    """A golden star around (x, y)."""
    big = Image.new("L", (8 * radius, 8 * radius))
    points = [
        (
            4 * radius * (1 + (1.0 if tip % 2 == 0 else 0.42) * math.sin(tip * math.pi / 5)),
            4 * radius * (1 - (1.0 if tip % 2 == 0 else 0.42) * math.cos(tip * math.pi / 5)),
        )
        for tip in range(10)
    ]
    ImageDraw.Draw(big).polygon(points, 255)
    stencil = big.resize((2 * radius, 2 * radius), Image.Resampling.LANCZOS)
    canvas.paste(Image.new("RGB", stencil.size, GOLD), (x - radius, y - radius), stencil)


def format_number(value: float) -> str:
    """Two decimals, four digits from 100 on, a true minus sign; n/a if not finite."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.4g}"
    text = text.lstrip("-") if float(text) == 0 else text
    return text.replace("-", "\N{MINUS SIGN}")


def format_signed(value: float) -> str:
    """`format_number` with a plus sign above 0."""
    text = format_number(value)
    return f"+{text}" if value > 0 and text != "0.00" else text


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
    values = plain_array(values)
    scaled = (values - lo) / (hi - lo) if hi > lo else np.zeros_like(values)
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
