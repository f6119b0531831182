"""Letters that the usual font lacks: drawn with another that is installed, named, or missed and said."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib.font_manager
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from t2i_credit.errors import T2ICreditWarning
from t2i_credit.heatmap import lettering
from t2i_credit.heatmap.lettering import wrap, write

SIZE = 40


def block_font(path: Path, letters: str) -> Path:
    """A font whose letters are solid blocks, 0.8 em wide and as high."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    build = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"uni{ord(c):04X}" for c in letters)]
    build.setupGlyphOrder(names)
    build.setupCharacterMap({ord(c): f"uni{ord(c):04X}" for c in letters})
    block = pen.glyph()
    build.setupGlyf(dict.fromkeys(names, block))
    build.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    build.save(path)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Says which fonts are installed."""

    def install(*paths: Path) -> None:
        for cached in (lettering._pieces, lettering._fallbacks, lettering._say_missing):
            cached.cache_clear()
        fonts = [str(path) for path in paths]
        monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: fonts)

    yield install
    for cached in (lettering._pieces, lettering._fallbacks, lettering._say_missing):
        cached.cache_clear()


def inked(text: str, **options) -> np.ndarray:
    """Where a line of text is darker than its paper: (100, 400) bool."""
    canvas = Image.new("L", (400, 100), 255)
    write(canvas, (200, 20), text, SIZE, "black", **options)
    return np.asarray(canvas) < 128


def test_a_letter_that_is_lacking_is_drawn_with_a_font_that_has_it(tmp_path, installed):
    installed(block_font(tmp_path / "Blocks.ttf", "一二"))
    seen = inked("一")
    rows, columns = seen.any(1).nonzero()[0], seen.any(0).nonzero()[0]
    # 0.8 em of 40 pixels, solid, on the base line of DejaVu Sans
    assert len(rows) == pytest.approx(32, abs=1) and len(columns) == pytest.approx(32, abs=1)
    assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.98


def test_a_line_of_two_scripts_stands_on_one_base_line(tmp_path, installed):
    installed(block_font(tmp_path / "Blocks.ttf", "一"))
    both = inked("H一")
    gap = both[:, 200:].any(0)
    left = 200 + int(np.argmin(gap[4:])) + 4  # the white column behind the H
    bottoms = [part.any(1).nonzero()[0].max() for part in (both[:, :left], both[:, left:])]
    assert abs(bottoms[0] - bottoms[1]) <= 1


@pytest.mark.parametrize(("anchor", "begin", "end"), [("la", 200, 310), ("ra", 90, 200)])
def test_an_anchor_holds_for_a_line_of_two_scripts(anchor, begin, end, tmp_path, installed):
    installed(block_font(tmp_path / "Blocks.ttf", "一"))
    columns = inked("H一一", anchor=anchor).any(0).nonzero()[0]
    # an H of 30 pixels, and two blocks of 32 in 40 each
    assert begin <= columns[0] <= begin + 8 and end - 8 <= columns[-1] <= end


def test_the_usual_letters_are_drawn_as_before(installed):
    installed()
    from PIL import ImageDraw

    canvas = Image.new("L", (400, 100), 255)
    font = lettering._font(lettering._dejavu(False), SIZE)
    ImageDraw.Draw(canvas).text((200, 20), "a cat", "black", font)
    assert np.array_equal(inked("a cat"), np.asarray(canvas) < 128)


def test_the_font_that_has_all_letters_is_taken_before_one_that_has_some(tmp_path, installed):
    some = block_font(tmp_path / "A-Regular.ttf", "一")
    every = block_font(tmp_path / "B.ttf", "一二")
    installed(some, every, tmp_path / "gone.ttf", Path(__file__))  # what is no font is passed over
    assert lettering._pieces("一 二", False) == [
        ("一", every),
        (" ", lettering._dejavu(False)),
        ("二", every),
    ]


def test_a_line_of_a_script_without_spaces_is_broken_between_its_letters(tmp_path, installed):
    installed(block_font(tmp_path / "Blocks.ttf", "一二"))
    # 40 pixels each: six letters in 250 pixels, and the rest below
    assert wrap("一二一二一二一二", SIZE, False, 250, 2) == ["一二一二一二", "一二"]
    assert wrap("red 一二", SIZE, False, 130, 2) == ["red 一", "二"]
    assert wrap("一二一二一二一二", SIZE, False, 130, 1) == ["一二…"]


def test_letters_that_no_font_has_are_said_once_and_an_emoji_is_named(installed):
    installed()
    with pytest.warns(T2ICreditWarning, match="no installed font has the letters 一 二: ") as told:
        inked("一 二")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inked("一 二", bold=True)  # said already
        assert lettering._pieces("a \ud800", False) == [("a ?", lettering._dejavu(False))]
        assert lettering._pieces("a 🦄", False) == [("a [unicorn face]", lettering._dejavu(False))]
