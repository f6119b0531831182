"""Masks of objects as JSON: the lengths of their runs. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def encode_mask(mask: Tensor | np.ndarray) -> dict[str, list[int]]:
    """A mask (h, w) as JSON: lengths of its runs in raster order, the first one of False (possibly
    0)."""
    grid = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask).astype(bool)
    padded = np.concatenate(([False], grid.ravel(), [not grid.ravel()[-1]]))
    return {
        "size": list(grid.shape),
        "counts": np.diff(np.flatnonzero(padded[1:] != padded[:-1]), prepend=0).tolist(),
    }


def decode_mask(encoded: Mapping[str, Sequence[int]]) -> np.ndarray:
    """The bool mask (h, w) of `encode_mask`."""
    counts = np.asarray(encoded["counts"])
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(tuple(encoded["size"]))
