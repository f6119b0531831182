"""Pictures as lines: where they run, what they leave free, and what they do to colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from t2i_credit.heatmap.draw import token_map
from t2i_credit.heatmap.lines import MOST, draw_lines, picture_lines


def square(ground, colour, size=(96, 64)):
    """A picture (w, h) with a rectangle from (24, 16) to (72, 48)."""
    picture = Image.new("RGB", size, ground)
    ImageDraw.Draw(picture).rectangle([24, 16, 71, 47], colour)
    return picture


@pytest.mark.parametrize(
    ("ground", "colour"),
    [
        ("white", "black"),
        ("black", "white"),
        ("#101010", "#1c1c1c"),
        ("#ff0000", "#0000ff"),
        ((150, 0, 0), (0, 76, 0)),  # of one lightness: 0.299 x 150 = 44.85, 0.587 x 76 = 44.6
    ],
)
def test_lines_run_along_the_edges_of_an_object_and_nowhere_else(ground, colour):
    levels = picture_lines(square(ground, colour), (4, 6), (384, 256))
    assert levels.shape == (256, 384) and levels.max() > 0
    y, x = np.nonzero(levels)
    apart = np.minimum.reduce([abs(x - 96), abs(x - 288), abs(y - 64), abs(y - 192)])
    assert apart.max() <= 6  # of 384 pixels, 24 of them a corner's rounding
    for side in (x < 110, x > 274, y < 78, y > 178):
        assert side.sum() > 60


def test_the_middle_of_every_token_stays_free():
    noise = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    grid = (3, 5)
    levels = picture_lines(Image.fromarray(noise), grid, (500, 300))
    assert (levels > 0).mean() > 0.01
    for row in range(3):
        for column in range(5):
            y, x = 50 + 100 * row, 50 + 100 * column
            assert not levels[y - 2 : y + 2, x - 2 : x + 2].any()


def test_a_crowded_picture_has_no_more_lines_than_leave_the_map_visible():
    noise = np.random.default_rng(0).integers(0, 255, (384, 384, 3), dtype=np.uint8)
    assert (picture_lines(Image.fromarray(noise), (24, 24), (384, 384)) > 0).mean() <= MOST


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_pictures_without_an_inside_and_without_edges_have_no_lines(size):
    assert not picture_lines(Image.new("RGB", size), (1, 1), size).any()
    flat = Image.new("L", (40, 40), 90)
    assert not picture_lines(flat, (4, 4), (80, 80)).any()


def test_lines_are_dark_on_light_colours_and_light_on_dark_ones():
    colours = np.array([[[250, 250, 250], [20, 20, 20], [100, 0, 0]]], np.uint8)
    drawn = draw_lines(colours, np.array([[3, 3, 0]]))
    assert drawn[0, 0].max() < 80 and drawn[0, 1].min() > 180
    np.testing.assert_array_equal(drawn[0, 2], [100, 0, 0])


def test_a_map_keeps_its_colours_under_the_lines():
    colours = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    image = square("white", "black")
    drawn = np.asarray(token_map(colours, image.resize((384, 256)), image))
    np.testing.assert_array_equal(drawn[64::128, 64::128], colours)
    assert (drawn != np.repeat(np.repeat(colours, 128, 0), 128, 1)).any()
