"""Drawing primitives of the heatmaps: texts, frames, colour bars, titled cells, token maps. Knows no sample.

Places and sizes in pixels; PIL's sizes are (width, height).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .heatmap_colours import diverging

PAPER, INK, QUIET, HAIRLINE, GOLD = "#fcfbf9", "#1c2230", "#747b8a", "#d8d6d0", "#a87908"
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
            draw_bar(
                canvas,
                self.bar,
                x,
                y + 54 + self.picture.height + 16,
                min(max(self.picture.width, NARROWEST), room),
            )


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


def write(
    canvas: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: str = INK,
    *,
    bold: bool = False,
    anchor: str = "la",
) -> None:
    """One line of text; `anchor` as in PIL."""
    ImageDraw.Draw(canvas).text(place, text, colour, _font(size, bold), anchor=anchor)


def wrap(text: str, size: int, bold: bool, width: int, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, cut with an ellipsis."""
    font = _font(size, bold)
    done: list[str] = []
    line = ""
    words = one_line(text).split(" ")
    for number, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
        elif len(done) + 1 < lines and line:
            done.append(line)
            line = word
        else:
            line = " ".join([line, *words[number:]]).strip()[:width]  # no letter is narrower than 1
            break
    if font.getlength(line) > width:
        while line and font.getlength(line + "\N{HORIZONTAL ELLIPSIS}") > width:
            line = line[:-1].rstrip()
        line += "\N{HORIZONTAL ELLIPSIS}"
    return [*done, line]


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


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


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
