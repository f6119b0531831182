"""Images between tensors, arrays and files: the one place where [0, 1] becomes 0..255. Resizes nothing."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

# what Pillow raises on a broken file; a broken PNG chunk is a SyntaxError
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """An image file as (h, w, 3), turned as it was taken, whatever its mode and depth.

    Of 16 bits the upper 8 are kept, alpha is dropped: both as GenEval's detector reads a file.

    Raises:
        one of UNREADABLE: no such file, no image, or levels that belong to no known depth.
    """
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode[0] in "IF":  # I, I;16, I;16B, F: Pillow would cut them off at 255
        image = Image.fromarray(_upper_bits(np.asarray(image), image.mode))
    elif image.mode == "P":  # Pillow warns of transparent colours that are dropped
        image = image.convert("RGBA")
    pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    return pixels


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
