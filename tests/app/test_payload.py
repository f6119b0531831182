"""What is sent to the page: outlines, where the credit lies, palettes, numbers and pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from app_toys import floats
from PIL import Image

from t2i_credit.app.payload import (
    encode,
    lines_payload,
    located,
    outline,
    palettes,
    picture_url,
    scale_payload,
)
from t2i_credit.heatmap.colours import diverging, table
from t2i_credit.heatmap.lines import picture_lines
from t2i_credit.heatmap.sample import Scale
from t2i_credit.run_folder.layout import encode_mask


def test_an_outline_walks_around_the_mask_on_pixel_edges():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    assert sorted(outline(mask).replace("M", " M").split()) == sorted(
        ["M2", "1H5", "M2", "3H5", "M2", "1V3", "M5", "1V3"]
    )


def test_an_outline_goes_along_the_border_of_the_picture_too():
    assert outline(np.ones((2, 3), dtype=bool)) == "M0 0H3M0 2H3M0 0V2M3 0V2"


def test_credit_on_objects_counts_each_token_by_the_share_that_is_covered():
    # 2 x 4 pixels, 1 x 2 tokens of 2 x 2 pixels; the object covers half of the first token and nothing else
    mask = np.zeros((2, 4), dtype=bool)
    mask[0, 0:2] = True
    entry = [{"prompted": True, "mask": encode_mask(mask)}]
    found = located(np.array([1.6, 0.4], np.float32), entry, (1, 2), (2, 4))
    assert found == {"on_objects": pytest.approx(1.6), "area": pytest.approx(0.25)}


def test_objects_that_the_prompt_does_not_name_do_not_count():
    entry = [{"prompted": False, "mask": encode_mask(np.eye(2, dtype=bool))}]
    assert located(np.ones(4, np.float32), entry, (2, 2), (2, 2)) is None


def test_every_palette_has_a_middle_and_a_diverging_one_is_neutral_there():
    for kind, known in palettes().items():
        for name, text in known.items():
            lut = np.frombuffer(base64.b64decode(text), np.uint8).reshape(257, 3)
            if kind != "credit":  # almost without colour in the middle, and different at the ends
                assert np.ptp(lut[128].astype(int)) <= 3, name
                assert np.abs(lut[0].astype(int) - lut[256]).sum() > 100, name


def test_numbers_that_are_not_finite_stay_so_and_the_order_of_bytes_is_fixed():
    values = np.array([np.nan, np.inf, 0.5], np.float32)
    np.testing.assert_array_equal(floats(encode(values)), values)
    np.testing.assert_array_equal(floats(encode(values.astype(">f8"))), values)


def test_large_pictures_are_sent_smaller_and_small_ones_exactly():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8))
    kind, _, text = picture_url(small).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(text))) as back:
        assert kind == "data:image/png;base64" and back.tobytes() == small.tobytes()
    _, _, text = picture_url(Image.new("RGB", (2000, 1000))).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(text))) as back:
        assert back.size == (512, 256)


def test_the_sent_edges_give_a_value_the_colour_that_files_have():
    sent = scale_payload(Scale(credit=2.0, contrast=3.5, advantage=0.0, clipped=frozenset()))
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    places = [(floats(sent["edges"]["contrast"]) <= value).sum() for value in values]
    np.testing.assert_array_equal(table("PuOr")[places], diverging(values, 3.5, "PuOr"))
    assert sent["marks"]["advantage"] == ((0.5, "0"),) and sent["advantage"] == 0


def test_lines_come_out_as_they_went_in():
    noise = np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)
    noise[20:] = 128  # long ways without a line
    picture = Image.fromarray(noise)
    sent = lines_payload(picture, (5, 9))
    back, place = np.zeros(sent["size"], np.uint8), -1
    for step in base64.b64decode(sent["steps"]):
        place += step >> 2
        back.flat[place] = step & 3
    np.testing.assert_array_equal(back, picture_lines(picture, (5, 9), (432, 240)))
    assert back.any() and lines_payload(Image.new("RGB", (8, 8)), (2, 2))["steps"] == ""
