"""From evidence to weights: rank, proportional, softmax, strength, and the arithmetic within rows. Knows no method.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError

ShapeKind = Literal["power_rank", "proportional", "softmax"]
ROUNDING = 1e-6  # a cosine in float32 is not known better


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


@torch.no_grad()
def uniform(mask: Tensor) -> Tensor:
    """Every token counts the same: 1 on the mask (GRPO). (B, T) bool to (B, T) float32."""
    return mask.float()


@torch.no_grad()
def apply_strength(credit: Tensor, mask: Tensor, strength: float) -> Tensor:
    """(1 - strength) + strength * credit on the mask, (B, T): 1 = as it is, 0 = exactly uniform."""
    if not 0 <= strength <= 1:
        raise UserError(f"strength must be in [0, 1], got {strength}")
    # lerp is exact at both ends and leaves a credit of 1 exactly 1
    return torch.where(mask, torch.lerp(torch.ones_like(credit), credit, strength), 0.0)


@torch.no_grad()
def power_rank(contrast: Tensor, mask: Tensor, *, top: float = 0.4, mass: float = 0.8) -> Tensor:
    """Tokens with the largest contrast matter, by rank alone: the top 40% hold 80% of the credit.

    w = N r^a / sum r^a with r = rank / N, ranks ascending from 1 to N within the row, and
    a = ln(1 - mass) / ln(1 - top) - 1: 2.1507 by default, and the largest weight is about a + 1.
    Source: the published code of 2605.29198, which breaks ties by position; here ties share their
    average rank, so equal contrast gives equal credit. Uniform where a row's contrasts are equal.

    Args:
        contrast: (B, T), at least 0.
        mask: (B, T) bool.
        top, mass: in (0, 1), mass >= top; mass == top is uniform. A top so small that 1 - top rounds
            to 1 is refused.

    Returns:
        (B, T) float32, row mean 1.
    """
    if not 0 < top <= mass < 1:
        raise UserError(f"power_rank needs 0 < top <= mass < 1, got top {top} and mass {mass}")
    if 1 - top == 1:  # the exponent divides by ln(1 - top)
        raise UserError(f"power_rank needs a top of at least 2e-16, got {top}")
    exponent = math.log(1 - mass) / math.log(1 - top) - 1
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return row_mean_one((average_ranks(contrast.float(), mask) / count) ** exponent, mask)


@torch.no_grad()
def proportional(contrast: Tensor, mask: Tensor) -> Tensor:
    """Credit in proportion to contrast: w = N c / sum c (the wording of 2605.29198's abstract).

    Uniform where a row has no contrast. (B, T), at least 0, and mask to (B, T) float32, row mean 1.
    """
    return row_mean_one(contrast.float(), mask)


@torch.no_grad()
def softmax_shape(contrast: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Credit grows exponentially with contrast.

    w = N softmax(c / max(c) / temperature) over the row. Uniform where all contrasts of a row are
    equal. (B, T), at least 0, and mask to (B, T) float32, row mean 1.

    Args:
        temperature: above 0; a row's weights differ by a factor of at most e^(1 / temperature).
    """
    if temperature <= 0:
        raise UserError(f"softmax needs a temperature above 0, got {temperature}")
    values = torch.where(mask, contrast.float(), 0.0)
    peak = values.amax(dim=1, keepdim=True)
    return row_softmax(values / torch.where(peak > 0, peak, 1.0) / temperature, mask)


def shaped(
    evidence: Tensor, mask: Tensor, shape: ShapeKind, *, top: float, mass: float, temperature: float
) -> Tensor:
    """Evidence (B, T) to weights of row mean 1."""
    if shape == "power_rank":
        return power_rank(evidence, mask, top=top, mass=mass)
    if shape == "proportional":
        return proportional(evidence, mask)
    if shape == "softmax":
        return softmax_shape(evidence, mask, temperature=temperature)
    raise UserError(f"shape is {shape!r}; allowed are power_rank, proportional, softmax")
