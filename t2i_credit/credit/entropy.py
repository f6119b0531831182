"""Entropy: tokens matter that the policy was unsure about, by a cut (2506.01939) or by rank (ours).

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .entry import CreditEntry
from .weights import apply_strength, power_rank, row_mean_one


@torch.no_grad()
def top_entropy(entropy: Tensor, mask: Tensor, *, rho: float = 0.2) -> Tensor:
    """Only the rho most undecided tokens matter: weight about 1 / rho, the others 0 (2506.01939).

    Selected are entropies at or above the row's (1 - rho) quantile; trl takes that quantile over
    the whole batch, which gives some images no credit at all. Uniform where all entropies of a row
    are equal.

    Args:
        entropy: (B, T), any unit.
        mask: (B, T) bool.
        rho: in (0, 1]; 1 is uniform.

    Returns:
        (B, T) float32, row mean 1.
    """
    if not 0 < rho <= 1:
        raise UserError(f"top_entropy needs rho in (0, 1], got {rho}")
    values = torch.where(mask, entropy.float(), torch.nan)
    return row_mean_one((values >= values.nanquantile(1 - rho, dim=1, keepdim=True)).float(), mask)


def _assign_top(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    rho: float = 0.2,
    guided: bool = False,
    strength: float = 1.0,
) -> Tensor:
    credit = top_entropy(fields["guided_entropy" if guided else "entropy"], mask, rho=rho)
    return apply_strength(credit, mask, strength)


def _assign_rank(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    guided: bool = False,
    top: float = 0.4,
    mass: float = 0.8,
    strength: float = 1.0,
) -> Tensor:
    evidence = fields["guided_entropy" if guided else "entropy"]
    return apply_strength(power_rank(evidence, mask, top=top, mass=mass), mask, strength)


def _fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({"guided_entropy" if parameters.get("guided", False) else "entropy"})


TOP_ENTROPY = CreditEntry(
    assign=_assign_top,
    description="the tokens that the policy was least sure about",
    paper="Beyond the 80/20 Rule, 2506.01939",
    needs=_fields,
)

ENTROPY_RANK = CreditEntry(
    assign=_assign_rank,
    description="tokens by the rank of the policy's entropy: no cut, unlike top_entropy",
    paper="ours",
    needs=_fields,
)
