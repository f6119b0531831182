"""STAGE (2509.25027): tokens matter where an image differs from those of its group that fared otherwise.

Shapes: P prompts, G samples each, B = P*G (sample b belongs to prompt b // G), T image tokens, C numbers a code vector;
mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .entry import CreditEntry
from .weights import ROUNDING, apply_strength, row_mean_one


@torch.no_grad()
def opposed_similarity(vectors: Tensor, advantages: Tensor, group_size: int) -> Tensor:
    """Mean cosine to the tokens at the same position in the group's other samples j with A_i A_j <= 0.

    Args:
        vectors: (B, T, C) code vectors of the sampled tokens.
        advantages: (B,).
        group_size: G, at least 2.

    Returns:
        (B, T) float32 in [-1, 1]; 0 for a sample that has none opposed to it.
    """
    unit = F.normalize(vectors.float(), dim=-1).unflatten(0, (-1, group_size))  # (P, G, T, C)
    signs = advantages.float().unflatten(0, (-1, group_size)).sign()
    opposed = (signs[:, :, None] * signs[:, None] <= 0).float()  # (P, G, G)
    opposed *= 1 - torch.eye(group_size, device=opposed.device)
    others = torch.einsum("pij,pjtc->pitc", opposed, unit)
    return ((unit * others).sum(-1) / opposed.sum(2, keepdim=True).clamp(min=1)).flatten(0, 1)


@torch.no_grad()
def similarity(opposed_similarity: Tensor, mask: Tensor) -> Tensor:
    """Tokens matter where an image differs from those of its group that fared otherwise.

    w = (1 - cos) / 2, scaled to row mean 1; cos = mean cosine to the tokens at the same position in samples with
    A_i A_j <= 0. Source: STAGE, 2509.25027, which scales over the batch. Uniform where all cosines of a row are equal.

    Args:
        opposed_similarity: (B, T) in [-1, 1].
        mask: (B, T) bool.

    Returns:
        (B, T) float32, row mean 1.
    """
    distance = ((1 - opposed_similarity.float()) / 2).clamp(0.0, 1.0)
    # equal tokens everywhere leave only the rounding of the cosine, which must not become credit
    return row_mean_one(torch.where(distance > ROUNDING, distance, 0.0), mask)


@torch.no_grad()
def similarity_kl_weight(opposed_similarity: Tensor, mask: Tensor) -> Tensor:
    """0.5 + 0.5 clamp(cos + 1, 0, 1): less KL penalty on tokens unlike those of opposed samples (STAGE, 2509.25027).

    (B, T) and mask to (B, T) float32 in [0.5, 1], 0 off the mask.
    """
    weights = 0.5 + 0.5 * (opposed_similarity.float() + 1).clamp(0.0, 1.0)
    return torch.where(mask, weights, 0.0)


def _assign(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, strength: float = 1.0
) -> Tensor:
    return apply_strength(similarity(fields["opposed_similarity"], mask), mask, strength)


def _kl_weights(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    return similarity_kl_weight(fields["opposed_similarity"], mask)


SIMILARITY = CreditEntry(
    assign=_assign,
    description="tokens unlike those of images of the same prompt that fared otherwise",
    paper="STAGE, 2509.25027",
    needs=frozenset({"opposed_similarity"}),
    kl_weights=_kl_weights,
    refresh="it depends on the sampled tokens alone",
)
