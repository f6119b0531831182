"""Value (ours): what a critic's expectation of the reward did at a token is added to the advantage.

The critic is training/critic/; here is what is made of its word. Where it knows nothing, this is `entropy_rank`.
Sources: values of prefixes as credit, VinePPO 2410.01679; the form is ours. Shapes: B samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .entropy import ENTROPY_RANK
from .entry import CreditEntry, token_advantages


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    change: float = 4.0,
    guided: bool = False,
    top: float = 0.4,
    mass: float = 0.8,
    strength: float = 1.0,
) -> Tensor:
    return ENTROPY_RANK.assign(
        fields, mask, advantages, guided=guided, top=top, mass=mass, strength=strength
    )


@torch.no_grad()
def _token_advantages(
    fields: Mapping[str, Tensor],
    credit: Tensor,
    mask: Tensor,
    advantages: Tensor,
    parameters: Mapping[str, Any],
) -> Tensor:
    """(A + change * trust * (V_{t+1} - V_t) / std) * credit, without the last residual R - V_T.

    `value_advantage` is trust * (V_{t+1} - V_t) / std; while it is 0, the result is that of `entropy_rank` bit for bit.
    """
    moved = torch.where(mask, fields["value_advantage"].float(), 0.0)
    return token_advantages(advantages, credit) + parameters.get("change", 4.0) * moved * credit


def _fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    return ENTROPY_RANK.fields_needed(**parameters) | {"value_advantage"}


VALUE = CreditEntry(
    assign=_assign,
    description="tokens by entropy's rank, pushed by what they did to the expected reward as a critic sees it",
    paper="ours",
    needs=_fields,
    token_advantages=_token_advantages,
    refresh="the values are those of the rollout",
)
