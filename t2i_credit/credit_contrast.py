"""Guidance contrast: how differently two prompts judge a token, and how that becomes weights (2605.29198).

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss. Public through credit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from .credit_rows import average_ranks, row_mean_one, row_softmax
from .errors import UserError

ContrastKind = Literal["k3", "abs", "gain", "symmetric", "full_kl"]
ShapeKind = Literal["power_rank", "proportional", "softmax"]

MAX_DIFFERENCE = 20.0  # nats; e^20 is still far inside float32
MAX_CONTRAST = 10.0  # as published: a few very unlikely tokens must not take all the credit

_CONTRASTS: dict[str, Callable[[Tensor], Tensor]] = {
    # e^d - 1 and cosh(d) - 1 as written would lose small contrasts to the rounding of 1
    "k3": lambda d: (d.expm1() - d).clamp(0.0, MAX_CONTRAST),
    "abs": lambda d: d.abs(),
    "gain": lambda d: (-d).clamp(min=0.0),
    "symmetric": lambda d: (2 * (d / 2).sinh().square()).clamp(max=MAX_CONTRAST),
}


@torch.no_grad()
def contrast(
    logprobs: Tensor | None,
    negative_logprobs: Tensor | None,
    mask: Tensor,
    *,
    kind: ContrastKind = "k3",
    full_kl: Tensor | None = None,
) -> Tensor:
    """How differently the positive and the negative prompt judge a token.

    With d = negative_logprobs - logprobs, clamped to +-20:
    k3: e^d - d - 1, at most 10, as published. abs: |d|. gain: max(-d, 0), how much the prompt raised
    the token. symmetric: cosh(d) - 1, at most 10. full_kl: the exact KL over all codes, as given.
    k3 is unsigned, and larger for tokens that fit the negative prompt better: 4.39 for d = 2, 1.14
    for d = -2. Source: Guidance Contrastive Policy Optimization, 2605.29198.

    Args:
        logprobs, negative_logprobs: (B, T) nats; not read (None will do) with kind "full_kl".
        mask: (B, T) bool.
        full_kl: (B, T) nats, for kind "full_kl" only.

    Returns:
        (B, T) float32, at least 0, 0 off the mask.

    Raises:
        UserError: an unknown kind, or an input that the kind needs is None.
    """
    if kind == "full_kl":
        if full_kl is None:
            raise UserError(
                "contrast kind full_kl needs full_kl, kept by a rollout that asks for it"
            )
        # rounding can leave a KL of 0 just below it; a code that only the positive prompt allows
        # gives infinity
        raw = full_kl.float().clamp(0.0, torch.finfo(torch.float32).max)
    elif kind in _CONTRASTS:
        if logprobs is None or negative_logprobs is None:
            raise UserError(f"contrast kind {kind} needs logprobs and negative_logprobs")
        difference = negative_logprobs.float() - logprobs.float()
        raw = _CONTRASTS[kind](difference.clamp(-MAX_DIFFERENCE, MAX_DIFFERENCE))
    else:
        allowed = ", ".join([*_CONTRASTS, "full_kl"])
        raise UserError(f"contrast kind is {kind!r}; allowed are {allowed}")
    return torch.where(mask, raw, 0.0)


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
