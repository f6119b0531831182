"""Images between tensors and arrays: the one place where [0, 1] becomes 0..255. Resizes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, h, w) in [0, 1] to (B, h, w, 3) uint8 on the CPU; values beyond the range are clamped."""
    levels = images.detach().float().clamp(0, 1).mul(255).round().byte()
    pixels: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def from_uint8(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B images (h, w, 3) uint8 to (B, 3, h, w) float32 in [0, 1]."""
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
