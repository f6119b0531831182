"""Image files of every mode and depth become the same 8-bit pixels; what cannot be read is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2i_credit.rollout.images import UNREADABLE, read_image

GREY = (np.arange(35, dtype=np.uint8) * 7).reshape(5, 7)  # 0, 7, ... 238
DEEP = GREY.astype(np.uint16) * 257  # 16 bits: 255 is 65535


def written(image: Image.Image, path: Path, **how: Any) -> Path:
    image.save(path, **how)
    return path


@pytest.mark.parametrize(
    ("name", "image", "how"),
    [
        ("I;16.png", Image.fromarray(DEEP), {}),
        ("I;16 of 8.png", Image.fromarray(DEEP & 0xFF00), {}),  # the lower bits say nothing
        ("I;16B.tif", Image.fromarray(DEEP.astype(">u2")), {}),
        ("I.tif", Image.fromarray(DEEP.astype(np.int32)), {}),
        ("F to 1.tif", Image.fromarray(GREY.astype(np.float32) / 255), {}),
        ("F to 255.tif", Image.fromarray(GREY.astype(np.float32)), {}),
        ("L.png", Image.fromarray(GREY), {}),
        ("L.png", Image.fromarray(GREY), {"transparency": 7}),
        ("LA.png", Image.fromarray(np.dstack([GREY, 0 * GREY])), {}),
        ("RGBA.png", Image.fromarray(np.dstack([GREY, GREY, GREY, 0 * GREY])), {}),
        ("P.png", Image.fromarray(GREY).convert("P"), {}),
        ("P.png", Image.fromarray(GREY).convert("P"), {"transparency": bytes(20)}),
        ("CMYK.jpg", Image.fromarray(GREY).convert("RGB").convert("CMYK"), {"quality": 100}),
        ("RGB.webp", Image.fromarray(GREY).convert("RGB"), {"lossless": True}),
    ],
)
def test_a_grey_picture_is_the_same_in_every_mode_and_depth(
    name: str, image: Image.Image, how: dict[str, Any], tmp_path: Path
) -> None:
    found = read_image(written(image, tmp_path / name, **how))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.dstack([GREY] * 3))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    found = read_image(written(Image.fromarray(GREY > 100), tmp_path / "1.png"))
    assert np.array_equal(found[..., 0], np.where(GREY > 100, 255, 0))


def test_sixteen_bits_of_each_colour_keep_the_upper_eight(tmp_path: Path) -> None:
    # Pillow writes none, so the file is written out: red 0x1234, green 0xabcd, blue 0xff00
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 0x1234, 0xABCD, 0xFF00)))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixel + chunk(b"IEND", b""))
    assert read_image(tmp_path / "deep.png").tolist() == [[[0x12, 0xAB, 0xFF]]]


def test_a_deep_picture_is_turned_as_it_was_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees, clockwise
    found = read_image(written(Image.fromarray(DEEP), tmp_path / "turned.png", exif=exif))
    assert np.array_equal(found[..., 0], np.rot90(GREY, -1))


@pytest.mark.parametrize(
    ("levels", "named"),
    [
        (np.array([[0.0, 700.0]], np.float32), "mode F with levels from 0 to 700; 0 to 255 is"),
        (np.array([[-1.0, 1.0]], np.float32), "mode F with levels from -1 to 1"),
        (np.array([[0.0, np.nan]], np.float32), "mode F with levels from nan to nan"),
        (np.array([[0, 70000]], np.int32), "mode I with levels from 0 to 70000; 0 to 65535 is"),
    ],
)
def test_levels_of_no_known_depth_are_refused(levels: Any, named: str, tmp_path: Path) -> None:
    path = written(Image.fromarray(levels), tmp_path / "odd.tif")
    with pytest.raises(UNREADABLE, match=named):
        read_image(path)
