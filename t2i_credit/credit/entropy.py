"""Entropy: tokens matter that the policy was unsure about, by a cut (2506.01939), by rank (ours), with a bonus (EG-GRPO).

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from .entry import CreditEntry
from .weights import apply_strength, power_rank, row_mean_one

Direction = Literal["positive", "advantage"]


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


@torch.no_grad()
def entropy_guided(
    advantages: Tensor,
    entropy: Tensor,
    mask: Tensor,
    *,
    excluded: float = 0.2,
    above: float = 0.5,
    bonus: float = 0.3,
    limit: float = 0.3,
    direction: Direction = "positive",
) -> Tensor:
    """Token advantages: none for the surest tokens, more for the unsure ones.

    A_t = (A + d [H > q_above] min(limit |A|, bonus H)) [H >= q_excluded], with H = entropy / ln V and the quantiles q
    of the sample's own tokens (2604.02355 and its code). d = 1 as published, whatever the sign of A: a bad image's
    unsure tokens are punished less, so a batch of mean advantage 0 pushes the tokens up that it drew. d = sign(A) is
    ours and has no such trap. Plain GRPO where all entropies of a row are equal.

    Args:
        advantages: (B,).
        entropy: (B, T), normalised, in [0, 1].
        mask: (B, T) bool.
        excluded: share of the tokens that get nothing, in [0, 1].
        above: quantile beyond which a token gets the bonus, in [0, 1].
        bonus, limit: at least 0; in units of the advantage.
        direction: of the bonus.

    Returns:
        (B, T) float32, 0 off the mask.

    Raises:
        UserError: a parameter out of range.
    """
    wrong = {
        f"excluded in [0, 1], got {excluded}": not 0 <= excluded <= 1,
        f"above in [0, 1], got {above}": not 0 <= above <= 1,
        f"bonus at least 0, got {bonus}": bonus < 0,
        f"limit at least 0, got {limit}": limit < 0,
    }
    for text, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(f"entropy_guided needs {text}")
    values = torch.where(mask, entropy.float(), torch.nan)
    levels = [values.nanquantile(q, dim=1, keepdim=True) for q in (excluded, above)]
    plain = advantages.float()[:, None]
    more = torch.minimum(limit * plain.abs(), bonus * values)
    if direction == "advantage":
        more = more * plain.sign()
    found = (plain + torch.where(values > levels[1], more, 0.0)) * (values >= levels[0])
    return torch.where(mask, found, 0.0)


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


def _assign_guided(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    excluded: float = 0.2,
    above: float = 0.5,
    bonus: float = 0.3,
    limit: float = 0.3,
    direction: Direction = "positive",
    strength: float = 1.0,
) -> Tensor:
    found = entropy_guided(
        advantages,
        fields["normalized_entropy"],
        mask,
        excluded=excluded,
        above=above,
        bonus=bonus,
        limit=limit,
        direction=direction,
    )
    return apply_strength(row_mean_one(found.abs(), mask), mask, strength)


def _guided_advantages(
    fields: Mapping[str, Tensor],
    credit: Tensor,
    mask: Tensor,
    advantages: Tensor,
    parameters: Mapping[str, Any],
) -> Tensor:
    """As published: not scaled to the mean of the advantage, which would undo the bonus."""
    own = {name: value for name, value in parameters.items() if name != "strength"}
    found = entropy_guided(advantages, fields["normalized_entropy"], mask, **own)
    plain = torch.where(mask, advantages.float()[:, None], 0.0)
    return torch.lerp(plain, found, parameters.get("strength", 1.0))


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

ENTROPY_GUIDED = CreditEntry(
    assign=_assign_guided,
    description="none for the tokens that the policy was surest about, a bonus where it was unsure",
    paper="EG-GRPO, 2604.02355",
    needs=frozenset({"normalized_entropy"}),
    token_advantages=_guided_advantages,
    refresh="it is always taken anew at every update",
)
