"""Reward map (ours): tokens matter where the judge looked. The map itself is the reward's, see rewards/maps.py.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from .entry import CreditEntry
from .weights import apply_strength, power_rank

MapKind = Literal["size", "signed"]


@torch.no_grad()
def map_evidence(
    reward_map: Tensor, advantages: Tensor, mask: Tensor, *, kind: MapKind = "size"
) -> Tensor:
    """How much a token has to do with what the image got.

    size: |m|, tokens whose code raised or lowered the reward. signed: m of an image that did better than its group, -m of one
    that did worse: tokens to thank, or to blame; those that spoke for the other side come last. An image of advantage 0
    gets 0 everywhere.

    Args:
        reward_map: (B, T) m, in units of the reward.
        advantages: (B,).
        mask: (B, T) bool.

    Returns:
        (B, T) float32, 0 off the mask.
    """
    found = torch.where(mask, reward_map.float(), 0.0)
    return found.abs() if kind == "size" else found * advantages.float().sign()[:, None]


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    kind: MapKind = "size",
    top: float = 0.4,
    mass: float = 0.8,
    strength: float = 1.0,
) -> Tensor:
    evidence = map_evidence(fields["reward_map"], advantages, mask, kind=kind)
    return apply_strength(power_rank(evidence, mask, top=top, mass=mass), mask, strength)


REWARD_MAP = CreditEntry(
    assign=_assign,
    description="tokens where the reward looked, by the map of a part of it",
    paper="ours",
    needs=frozenset({"reward_map"}),
    refresh="it depends on the sampled images alone",
)
