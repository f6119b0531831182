"""Drawing: maps at the size of a picture, frames, bars, cells. Knows no sample; colours come from colours.py.

Shapes: token maps (H, W) = (rows, columns), images (h, w). Places and sizes of what is drawn are in pixels, sizes
(width, height) as PIL has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .colours import bar_marks, table
from .lettering import length, write
from .lines import draw_lines, picture_lines

PAPER, QUIET, HAIRLINE, GOLD = "#fcfbf9", "#747b8a", "#d8d6d0", "#a87908"
CELL = 288  # pixels
NARROWEST = 216  # pixels that a colour bar and its labels need


@dataclass(frozen=True)
class Bar:
    """A colour bar: its colours (257, 3) from left to right, marks as `bar_marks` has them, what low and high mean."""

    colours: np.ndarray
    marks: tuple[tuple[float, str], ...]
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


def token_map(colours: np.ndarray, picture: Image.Image, image: Image.Image) -> Image.Image:
    """Colours (H, W, 3) at the size of `picture`, a flat rectangle for each token, under `image` as lines."""
    grown = Image.fromarray(colours).resize(picture.size, Image.Resampling.NEAREST)
    lines = picture_lines(image, (colours.shape[0], colours.shape[1]), picture.size)
    return Image.fromarray(draw_lines(np.asarray(grown), lines))


def scale_bar(
    limit: float, palette: str, ends: tuple[str, str], *, signed: bool = True, beyond: bool = False
) -> Bar:
    """The bar of a palette; `limit`, `signed` and `beyond` as in `bar_marks`."""
    return Bar(table(palette), bar_marks(limit, signed, beyond), ends)


def draw_bar(canvas: Image.Image, bar: Bar, x: int, y: int, width: int) -> None:
    """The bar with its top left corner at (x, y), its labels and meanings below it; a label that would touch a more
    important one is left out, its tick stays."""
    strip = Image.fromarray(bar.colours[None]).resize((width, 10), Image.Resampling.BILINEAR)
    paste_framed(canvas, strip, x, y)
    pen = ImageDraw.Draw(canvas)
    taken: list[tuple[float, float]] = []
    for share, label in bar.marks:
        place = x + round(share * (width - 1))
        pen.line([(place, y + 10), (place, y + 14)], QUIET)
        long = length(label, 13)
        left = min(max(place - long / 2, x), x + width - long)
        if all(left > end + 6 or left + long < start - 6 for start, end in taken):
            taken.append((left, left + long))
            write(canvas, (round(left), y + 17), label, 13)
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
