"""Arithmetic within the rows of a credit map: scaling to mean 1, softmax, ranks. Knows no evidence and no method.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_mean_one(raw: Tensor, mask: Tensor) -> Tensor:
    """(B, T) float32 >= 0, scaled to row mean 1 over the mask; a row of zeros becomes uniform."""
    raw = torch.where(mask, raw, 0.0)
    peak = raw.amax(dim=1, keepdim=True)
    # dividing by the peak first keeps the sum in range, and makes equal weights exactly 1
    raw = torch.where(peak == 0, mask.float(), raw / torch.where(peak == 0, 1.0, peak))
    return raw * (mask.sum(dim=1, keepdim=True) / raw.sum(dim=1, keepdim=True).clamp(min=1.0))


def row_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """(B, T) to N softmax over the True positions of each row."""
    peak = torch.where(mask, values, -torch.inf).amax(dim=1, keepdim=True)
    return row_mean_one((values - peak).exp(), mask)


def average_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Ranks 1..N, ascending, within the True positions of each row; ties share their average.

    (B, T) float32 to (B, T) float32, in O(T log T): the ranks of a value run from the number of
    smaller ones + 1 to the number of those that are not larger.
    """
    values = values.clamp(max=torch.finfo(values.dtype).max)  # infinity means off the mask below
    keys = torch.where(mask, values, torch.inf).contiguous()
    ordered = keys.sort(dim=1).values
    smaller = torch.searchsorted(ordered, keys)
    not_larger = torch.searchsorted(ordered, keys, right=True)
    return (smaller + 1 + not_larger).float() / 2
