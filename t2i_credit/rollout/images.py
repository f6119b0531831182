"""Images between tensors, arrays and files: the one place where [0, 1] becomes 0..255. Resizes nothing."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..files import MOST_GIVEN, regular_file

if TYPE_CHECKING:
    from torch import Tensor

# what Pillow raises on a broken file; a broken PNG chunk is a SyntaxError
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "BMP",
)  # whatever a file is called: others may start programs
PNG = b"\x89PNG\r\n\x1a\n"
NARROW = 50  # times as long as wide
# where the passes of an interlaced PNG begin, and their steps: x, y, across, down (PNG, section 8.2)
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """An image file as (h, w, 3), turned as it was taken, whatever its mode and depth.

    Of 16 bits the upper 8 are kept, alpha is dropped: both as GenEval's detector reads a file.

    Raises:
        one of UNREADABLE: no such file, no image, or levels that belong to no known depth.
    """
    with regular_file(path, MOST_GIVEN) as opened:
        require_rows(opened)
        with Image.open(opened, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
    if image.mode[0] in "IF":  # I, I;16, I;16B, F: Pillow would cut them off at 255
        image = Image.fromarray(_upper_bits(np.asarray(image), image.mode))
    elif image.mode == "P":  # Pillow warns of transparent colours that are dropped
        image = image.convert("RGBA")
    pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    return pixels


def too_narrow(height: int, width: int) -> str:
    """Why a picture is not resized, of which whoever does so makes gigabytes; "" if it may be."""
    if max(height, width) <= NARROW * min(height, width):
        return ""
    return f"{width} x {height} pixels are too narrow"


def require_rows(file: BinaryIO) -> None:
    """Raises OSError if a PNG holds fewer rows than it says: Pillow shows the others black. Other formats are left to it.

    Args:
        file: at its beginning, where it is left again.
    """
    start = file.tell()
    try:
        if file.read(8) != PNG:
            return
        wanted, found, unpack = 0, 0, zlib.decompressobj()
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND" or not kind.isalpha():
                break
            if kind == b"IDAT":
                packed = file.read(length)
                while packed and found <= wanted:
                    found += len(unpack.decompress(packed, 1 << 20))
                    packed = unpack.unconsumed_tail
                file.seek(4, os.SEEK_CUR)
                continue
            if kind == b"IHDR":
                wanted = _png_bytes(*struct.unpack(">IIBB2xB", file.read(13)))
                length = 0
            file.seek(length + 4, os.SEEK_CUR)
        if found < wanted:
            raise OSError(f"image file is truncated ({found} of {wanted} bytes of pixels)")
    finally:
        file.seek(start)


def _png_bytes(width: int, height: int, depth: int, color: int, interlaced: int) -> int:
    """Unpacked bytes of a PNG's pixels: each row has one more than its pixels; seven small images if it is interlaced."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 0)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, across, down in passes:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0:
            total += max(0, rows) * (1 + -(-columns * bits // 8))
    return total


def _upper_bits(levels: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """Levels (h, w) of more than 8 bits as 8 bits; floats run to 1 or, if any is above it, to 255."""
    low, high = levels.min(), levels.max()
    most = 255 if mode == "F" else 2**16 - 1
    if not (low >= 0 and high <= most):  # nan, too
        raise ValueError(f"mode {mode} with levels from {low:g} to {high:g}; 0 to {most} is known")
    if mode == "F":
        return (levels * (255 if high <= 1 else 1)).round().astype(np.uint8)
    return (levels.astype(np.uint32) >> 8).astype(np.uint8)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, h, w) in [0, 1] to (B, h, w, 3) uint8 on the CPU; values beyond the range are clamped."""
    levels = images.detach().float().clamp(0, 1).mul(255).round().byte()
    pixels: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def from_uint8(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B images (h, w, 3) uint8 to (B, 3, h, w) float32 in [0, 1]."""
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
