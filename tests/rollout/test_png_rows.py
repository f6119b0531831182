"""A PNG that holds fewer rows than it says is unreadable, and none that is whole is taken for one."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_credit.measure.evaluation.image_folder import load_image
from t2i_credit.rewards.wire import WireError, unpack_images
from t2i_credit.rollout.images import read_image


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(rows: int, extra: bytes = b"", *, side: int = 48) -> bytes:
    """A red square that says it has `side` rows."""
    pixels = zlib.compress(b"".join(b"\0" + bytes([200, 10, 10]) * side for _ in range(rows)))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def test_three_of_48_rows_are_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(48))
    assert read_image(path).shape == (48, 48, 3) and (read_image(path) == [200, 10, 10]).all()
    for rows in (3, 47):
        path.write_bytes(png(rows))
        assert str(load_image(path)).startswith("unreadable (image file is truncated")
        with pytest.raises(
            WireError, match=r"images\[0\]: not a PNG in base64 \(image file is trunc"
        ):
            unpack_images([base64.b64encode(path.read_bytes()).decode()], max_bytes=1 << 20)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_and_profiles_of_80_megabytes_are_refused_and_not_unpacked(kind: bytes) -> None:
    bomb = chunk(kind, b"k\0\0" + zlib.compress(bytes(80 << 20)))
    with pytest.raises(
        WireError, match=r"images\[0\]: not a PNG in base64 \(Decompressed data too"
    ):
        unpack_images([base64.b64encode(png(48, bomb)).decode()], max_bytes=1 << 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (17, 16), (48, 33)])
def test_whole_pictures_of_every_mode_and_size_are_read(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    image = Image.fromarray(levels.astype(np.uint16) if mode == "I;16" else levels)
    image = image if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (size[1], size[0], 3)


def interlaced(width: int, height: int) -> bytes:
    """A grey PNG in seven passes."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    raw = b""
    for x, y, across, down in passes:
        columns = len(range(x, width, across))
        raw += b"".join(b"\0" + bytes([128]) * columns for _ in range(y, height, down) if columns)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 4), (9, 3), (33, 20)])
def test_interlaced_pictures_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(interlaced(*size))
    assert (np.asarray(Image.open(io.BytesIO(interlaced(*size)))) == 128).all()
    assert (read_image(tmp_path / "a.png") == 128).all()
