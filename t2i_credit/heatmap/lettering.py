"""Text on a picture: DejaVu Sans, and for letters that it lacks whatever font is installed. Knows no picture's content.

Each piece of a line is drawn with the first font that has all of its letters. An emoji that no font has is named in
brackets; other letters are left as boxes, and said once.
"""

from __future__ import annotations

import itertools
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import T2ICreditWarning

INK = "#1c2230"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_INVISIBLE = ("Cf", "Mn", "Me")  # joiners, variation selectors, accents that stand by themselves
_WIDE = ("W", "F")  # of East Asian scripts, which have no spaces to break a line at
_LAST_RESORT = "LastResort"  # matplotlib's font of boxes


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
    pieces = _pieces(text, bold)
    draw = ImageDraw.Draw(canvas)
    if len(pieces) < 2:
        for piece, path in pieces:
            draw.text(place, piece, colour, _font(path, size), anchor=anchor)
        return
    main = _font(_dejavu(bold), size)
    share = {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    x = place[0] - share * _length(pieces, size)
    ascent, descent = main.getmetrics()
    y = place[1] + {"a": ascent, "m": (ascent - descent) / 2, "s": 0}[anchor[1]]
    for piece, path in pieces:  # on one base line
        font = _font(path, size)
        draw.text((x, y), piece, colour, font, anchor="ls")
        x += font.getlength(piece)


def length(text: str, size: int) -> float:
    """How many pixels a line of text is long."""
    return _length(_pieces(text, False), size)


def wrap(text: str, size: int, bold: bool, width: int, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, cut with an ellipsis."""

    def fits(line: str) -> bool:
        return _length(_pieces(line, bold), size) <= width

    done: list[str] = []
    line = ""
    words = _words(text)
    for number, (word, spaced) in enumerate(words):
        longer = f"{line} {word}" if line and spaced else line + word
        if fits(longer):
            line = longer
        elif len(done) + 1 < lines and line:
            done.append(line)
            line = word
        else:
            rest = "".join(f" {word}" if spaced else word for word, spaced in words[number:])
            line = (line + rest).strip()[:width]  # no letter is narrower than 1
            break
    if not fits(line):
        while line and not fits(line + ELLIPSIS):
            line = line[:-1].rstrip()
        line += ELLIPSIS
    return [*done, line]


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def _words(text: str) -> list[tuple[str, bool]]:
    """What a line may be broken between, and whether a space stands before it."""
    found: list[tuple[str, bool]] = []
    for word in one_line(text).split(" "):
        runs = itertools.groupby(word, lambda c: unicodedata.east_asian_width(c) in _WIDE)
        parts = [part for wide, run in runs for part in (run if wide else ["".join(run)])]
        found += [(part, place == 0) for place, part in enumerate(parts)]
    return found


def _length(pieces: Sequence[tuple[str, Path]], size: int) -> float:
    return sum(_font(path, size).getlength(piece) for piece, path in pieces)


@lru_cache(1024)  # wrapping asks for every beginning of a line
def _pieces(text: str, bold: bool) -> list[tuple[str, Path]]:
    """A line in pieces, each with the file of a font that has its letters."""
    text = text.encode("utf-8", "replace").decode()  # halves of characters are question marks
    main = _dejavu(bold)
    had = _letters(main)
    missing = {c for c in text if ord(c) not in had}
    if not missing:
        return [(text, main)] if text else []
    drawn = {c for c in missing if unicodedata.category(c) not in _INVISIBLE}
    other = {c: path for path in _fallbacks(frozenset(drawn)) for c in drawn if _has(path, c)}
    named = {c for c in drawn - other.keys() if unicodedata.category(c) == "So"}
    if boxes := drawn - other.keys() - named:
        _say_missing(" ".join(sorted(boxes)[:8]))
    shown: list[tuple[str, Path]] = []
    for c in text:
        if c in missing - drawn:
            continue
        letter = f"[{unicodedata.name(c, 'symbol').lower()}]" if c in named else c
        shown.append((letter, other.get(c, main)))
    groups = itertools.groupby(shown, lambda piece: piece[1])
    return [("".join(letter for letter, _ in run), path) for path, run in groups]


@cache
def _say_missing(letters: str) -> None:
    warnings.warn(
        f"no installed font has the letters {letters}: pictures show boxes in their place; install a font that has them, "
        "such as Noto Sans CJK for Chinese, Japanese and Korean",
        T2ICreditWarning,
        stacklevel=2,
    )


@cache
def _fallbacks(letters: frozenset[str]) -> list[Path]:
    """Installed fonts, the best for these letters last: most of them, then a plain upright one."""
    from matplotlib.font_manager import findSystemFonts

    counted = [
        (sum(_has(path, c) for c in letters), "regular" in path.stem.lower(), str(path))
        for path in map(Path, sorted(findSystemFonts()))
    ]
    return [Path(name) for count, _, name in sorted(counted) if count]


def _has(path: Path, letter: str) -> bool:
    return ord(letter) in _letters(path)


@cache
def _letters(path: Path) -> frozenset[int]:
    """The code points of a font; none of a file that is no outline font."""
    from matplotlib.ft2font import FT2Font

    if path.stem.startswith(_LAST_RESORT):
        return frozenset()
    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _dejavu(bold: bool) -> Path:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path(), "fonts", "ttf", name)


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
