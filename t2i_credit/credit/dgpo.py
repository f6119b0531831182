"""DGPO (2605.03327): tokens matter where the policy has left its reference and is undecided.

Shapes: B samples, T image tokens, V codebook entries; mask (B, T) bool, True = counts in the loss.
Weights are (B, T) float32, 0 off the mask, mean 1 over the True positions of each row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from ..rollout.logprobs import entropy as entropy_in_nats
from .entry import CreditEntry
from .weights import apply_strength, row_softmax


def normalized_entropy(logits: Tensor) -> Tensor:
    """Entropy / ln V in [0, 1]: (..., V) to (...) float32."""
    return (entropy_in_nats(logits) / math.log(max(logits.shape[-1], 2))).clamp(0.0, 1.0)


@torch.no_grad()
def distribution_guided(
    hellinger: Tensor, entropy: Tensor, mask: Tensor, *, tau: float = 0.5, kappa: float = 1.0
) -> Tensor:
    """Tokens matter where the policy has moved away from the reference and is undecided.

    w = N softmax(h H^kappa / tau) over the row (DGPO, 2605.03327). Uniform while policy =
    reference, as at step 0: h = 0 everywhere.

    Args:
        hellinger: (B, T) squared Hellinger distance between policy and reference, in [0, 1].
        entropy: (B, T) the policy's entropy divided by ln V, in [0, 1].
        mask: (B, T) bool.
        tau: above 0; smaller = sharper.
        kappa: at least 0; 0 ignores the entropy.

    Returns:
        (B, T) float32, row mean 1.
    """
    if tau <= 0 or kappa < 0:
        raise UserError(f"distribution_guided needs tau > 0 and kappa >= 0, got {tau} and {kappa}")
    return row_softmax(hellinger.float() * entropy.float() ** kappa / tau, mask)


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    tau: float = 0.5,
    kappa: float = 1.0,
    strength: float = 1.0,
) -> Tensor:
    distance, undecided = fields["hellinger"], fields["normalized_entropy"]
    credit = distribution_guided(distance, undecided, mask, tau=tau, kappa=kappa)
    return apply_strength(credit, mask, strength)


DISTRIBUTION_GUIDED = CreditEntry(
    assign=_assign,
    description="tokens where the policy has left the reference and is undecided",
    paper="DGPO, 2605.03327",
    needs=frozenset({"hellinger", "normalized_entropy"}),
    needs_reference=True,
    refresh="it is always taken anew at every update",
)
