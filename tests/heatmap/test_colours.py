"""From numbers to colours: palettes, scales, limits and the labels of bars."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from t2i_credit.heatmap.colours import (
    ADVANTAGE,
    CONTRAST,
    CREDIT,
    DARK,
    PALETTES,
    bar_marks,
    brief,
    diverging,
    edges,
    robust_limit,
    sequential,
    table,
)
from t2i_credit.heatmap.draw import Bar, draw_bar
from t2i_credit.heatmap.lettering import length

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
EXTREME = [0.0, 1e-30, 3e-7, 0.004, 0.5, 9.996, 31.4, 99.96, 2345.0, 99999.0, 1e6, 3.4e38]


@pytest.mark.parametrize("palette", [ADVANTAGE, CONTRAST])
def test_zero_is_an_exact_grey_and_opposite_values_are_opposite_hues(palette):
    zero, low, high = diverging([0.0, -0.5, 0.5], 1.0, palette)
    assert zero.min() == zero.max() > 240
    # red and orange (against) have more red than blue, blue and purple (for) more blue than red
    assert low[0] > low[2] + 60
    assert high[2] > high[0] + 30


def test_no_credit_is_nearly_white_and_a_larger_one_always_darker():
    colours = sequential(np.linspace(0, 3, 100), 3).astype(float)
    luminance = colours @ LUMINANCE
    assert colours[0].min() > 240 and np.ptp(colours[0]) < 8
    assert (np.diff(luminance) < 0.5).all()  # 8-bit colours round
    assert luminance[0] - luminance[-1] > 180


@pytest.mark.parametrize("palette", DARK)
def test_a_palette_for_the_dark_is_dark_at_0_and_brighter_the_further_from_it(palette):
    light = table(palette).astype(float) @ LUMINANCE
    assert light[128] == light.min() < 30
    assert (np.diff(light[128:]) > 0).all() and (np.diff(light[:129]) < 0).all()
    assert light[0] > 180 and light[256] > 180


@pytest.mark.parametrize("palette", sorted({name for names in PALETTES.values() for name in names}))
def test_colours_of_a_palette_can_be_told_apart(palette):
    shades = table(palette).astype(int)
    apart = np.abs(shades[:, None] - shades[None]).sum(-1)
    far = np.abs(np.subtract.outer(np.arange(257), np.arange(257))) > 12
    assert apart[far].min() > 8


def test_a_value_has_its_place_on_a_square_root_scale():
    # a quarter of the limit lies halfway from the middle to the end: 128 + 128 / 2
    (quarter,) = diverging([1.0], 4.0)
    np.testing.assert_array_equal(quarter, table(ADVANTAGE)[192])
    # a sixteenth of the limit, a quarter of the way: 256 / 4
    (mean,) = sequential([1.0], 16.0)
    np.testing.assert_array_equal(mean, table(CREDIT)[64])
    # up to 4 times the mean the scale is even: 256 / 2
    (half,) = sequential([1.0], 2.0)
    np.testing.assert_array_equal(half, table(CREDIT)[128])


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("limit", EXTREME)
def test_edges_rise_and_zero_has_the_neutral_colour_on_every_scale(limit, signed):
    found = edges(limit, signed)
    assert found.shape == (256,) and found.dtype == np.float32
    assert (found[:-1] <= found[1:]).all()
    if limit == 0 or limit > 1e-20:
        assert np.searchsorted(found, 0.0, "right") == (128 if signed else 0)


def test_values_beyond_the_limit_take_the_end_colours():
    colours = diverging([-9.0, -2.0, 2.0, 9.0], 2.0)
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[2], colours[3])
    assert not np.array_equal(colours[1], colours[2])


def test_a_scale_without_width_and_values_that_are_not_finite_are_neutral():
    grey = diverging([0.0], 1.0)[0]
    np.testing.assert_array_equal(diverging([3.0, -3.0], 0.0), [grey, grey])
    np.testing.assert_array_equal(diverging([np.nan, np.inf], 1.0), [grey, grey])


def test_colours_end_at_the_largest_value_unless_it_is_an_outlier():
    values = np.array([1.0, -1.0] * 24 + [-2.0])
    assert robust_limit(values) == 2.0  # no more than twice the others
    values[-1] = -2.5
    assert robust_limit(values) == 1.0
    assert robust_limit(np.zeros((3, 5))) == robust_limit([]) == 0.0
    assert robust_limit(np.array([1.0] * 1000 + [15.0])) == 1.0
    assert robust_limit(np.array([0.0] * 1000 + [15.0])) == 15.0  # values of 0 do not count


def test_one_sample_far_from_the_others_leaves_them_their_colours():
    # a group of 12 where one image is right: advantages of 11 / 11^0.5 = 3.3 and -0.3
    credit = np.random.default_rng(0).gamma(2.0, 0.5, (12, 36))
    advantages = np.array([11**0.5] + [-(11**-0.5)] * 11)
    values = advantages[:, None] * credit
    colours = diverging(values, robust_limit(values)).astype(int)
    seen = np.abs(colours[1:] - 247).max(-1)  # from the neutral grey
    assert np.median(seen) > 25 and len(np.unique(colours[1:].reshape(-1, 3), axis=0)) > 12


@pytest.mark.parametrize("beyond", [True, False])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("width", [216, 320])
def test_labels_of_a_bar_never_touch(signed, beyond, width, monkeypatch):
    from PIL import Image

    written = []
    monkeypatch.setattr(
        "t2i_credit.heatmap.draw.write",
        lambda canvas, place, text, size, *_, **more: more or written.append((place[0], text)),
    )
    for limit in EXTREME:
        written.clear()
        marks = bar_marks(limit if signed else max(limit, 2.0), signed, beyond)
        draw_bar(Image.new("RGB", (400, 80)), Bar(table(CREDIT), marks, ("", "")), 40, 10, width)
        spans = sorted((x, x + length(text, 13)) for x, text in written)
        assert all(end + 4 < start for (_, end), (start, _) in pairwise(spans)), written
        assert spans[0][0] >= 39 and spans[-1][1] <= 41 + width
        told = {text for _, text in written}
        if not signed:
            assert "mean 1" in told and any(beyond == text.startswith("≥") for text in told)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (9.996, "10.0"),
        (24, "24.0"),
        (150, "150"),
        (99999, "1e5"),
        (0.004, "0.004"),
        (0.0003, "0.0003"),
        (0.00003, "3e\N{MINUS SIGN}5"),
        (3.4e38, "3e38"),
    ],
)
def test_a_label_is_short(value, text):
    assert brief(value) == text
