"""GCPO, Group Critical-token Policy Optimization (2509.22485): a few kinds of tokens matter and the others do not.

Shapes: P prompts, G samples each, B = P*G (sample b belongs to prompt b // G), T = H*W image tokens in raster order,
C numbers a code vector; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .entry import CreditEntry
from .weights import apply_strength, row_mean_one

# as published: edges are looked for from 10% of the tokens on, in 80% of them
ENTROPY_RANGE = (0.1, 0.8)
MAX_LOG_RATIO = 0.5  # nats, as published


@torch.no_grad()
def group_similarity(vectors: Tensor, group_size: int) -> Tensor:
    """Mean cosine over the pairs of a group's samples, position by position: one map per group.

    Args:
        vectors: (B, T, C) code vectors of the sampled tokens.
        group_size: G, at least 2.

    Returns:
        (B, T) float32 in [-1, 1].
    """
    unit = F.normalize(vectors.float(), dim=-1).unflatten(0, (-1, group_size))  # (P, G, T, C)
    # |sum of v|^2 = sum of |v|^2 + the cosine of every ordered pair
    pairs = unit.sum(1).square().sum(-1) - unit.square().sum((1, 3))
    return (pairs / (group_size * (group_size - 1))).repeat_interleave(group_size, 0)


@torch.no_grad()
def entropy_gradient(entropy: Tensor, grid: tuple[int, int]) -> Tensor:
    """How steeply the entropy changes over the picture: |central difference| of its causal 5-neighbour mean.

    The five are the token itself and those sampled before it around it: left, above left, above, above right. At the
    border the mean is over those that exist, and the difference is one-sided.

    Args:
        entropy: (B, T) nats.
        grid: (H, W), T = H*W.

    Returns:
        (B, T) float32, at least 0.
    """
    around = (0, 0), (0, -1), (-1, -1), (-1, 0), (-1, 1)
    values = F.pad(entropy.float().unflatten(1, grid), (1, 1, 1, 0))  # (B, H + 1, W + 2)
    exists = F.pad(torch.ones(1, *grid, device=entropy.device), (1, 1, 1, 0))
    height, width = grid

    def total(padded: Tensor) -> Tensor:
        shifted = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in around]
        return torch.stack(shifted).sum(0)

    mean = total(values) / total(exists)
    slopes = [torch.gradient(mean, dim=axis)[0] for axis in (1, 2) if mean.shape[axis] > 1]
    return torch.stack([s.square() for s in slopes]).sum(0).sqrt().flatten(1)


@torch.no_grad()
def critical_mask(
    entropy_gradient: Tensor, group_similarity: Tensor, mask: Tensor, *, fraction: float = 0.1
) -> Tensor:
    """The critical tokens of 2509.22485: the first ones, those on edges of the entropy, those in which a group differs.

    Of N tokens k = floor(fraction N) each: the first k; the k steepest of those from 10% to 90%; of the rest the k
    that are most unlike across the group. All tokens where k is 0. Ties go to the earlier token.

    Args:
        entropy_gradient, group_similarity: (B, T).
        mask: (B, T) bool; positions are counted within it.
        fraction: in (0, 0.3].

    Returns:
        (B, T) bool.
    """
    if not 0 < fraction <= 0.3:
        raise UserError(f"critical_tokens needs a fraction in (0, 0.3], got {fraction}")
    tokens = mask.sum(dim=1, keepdim=True)
    place = mask.cumsum(dim=1) - 1
    count = (tokens.double() * fraction).long()
    first, length = ((tokens.double() * share).long() for share in ENTROPY_RANGE)
    early = mask & (place < count)
    inside = mask & (place >= first) & (place < first + length)
    steep = _largest(entropy_gradient.float(), inside, count)
    varied = _largest(-group_similarity.float(), mask & ~early & ~steep, count)
    return torch.where(count > 0, early | steep | varied, mask)


@torch.no_grad()
def critical_tokens(
    entropy_gradient: Tensor,
    group_similarity: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    fraction: float = 0.1,
) -> Tensor:
    """Only critical tokens matter (see `critical_mask`), more so where the policy has grown surer than the reference.

    w = m_t on them and 0 elsewhere, scaled to row mean 1; m_t = the mean over the tokens up to t of
    exp(clamp(logprob - ref_logprob, +-0.5)). Source: Group Critical-token Policy Optimization, 2509.22485, and its
    code, which compares the transformer's input embeddings; here code vectors stand for them. Uniform only for an
    image of so few tokens that all of them are critical, while policy = reference.

    Args:
        entropy_gradient, group_similarity: (B, T).
        logprobs, ref_logprobs: (B, T) of the policy in its own form, and of the frozen reference.
        mask: (B, T) bool.
        fraction: in (0, 0.3], of each kind.

    Returns:
        (B, T) float32, row mean 1.
    """
    chosen = critical_mask(entropy_gradient, group_similarity, mask, fraction=fraction)
    difference = torch.where(mask, logprobs.float() - ref_logprobs.float(), 0.0)
    ratio = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * mask
    running = ratio.cumsum(dim=1) / mask.cumsum(dim=1).clamp(min=1)
    return row_mean_one(running * chosen, mask)


def _largest(values: Tensor, allowed: Tensor, count: Tensor) -> Tensor:
    """(B, T) bool: the `count` (B, 1) largest values of each row among the allowed ones; ties by position."""
    order = torch.where(allowed, values, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return allowed & (rank < count)


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    fraction: float = 0.1,
    strength: float = 1.0,
) -> Tensor:
    credit = critical_tokens(
        fields["entropy_gradient"],
        fields["group_similarity"],
        fields["policy_logprobs"],
        fields["ref_logprobs"],
        mask,
        fraction=fraction,
    )
    return apply_strength(credit, mask, strength)


def _kl_weights(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    """1 on the critical tokens and 0 elsewhere, whatever the strength."""
    edges, alike = fields["entropy_gradient"], fields["group_similarity"]
    return critical_mask(edges, alike, mask, fraction=parameters.get("fraction", 0.1)).float()


CRITICAL_TOKENS = CreditEntry(
    assign=_assign,
    description="the first tokens, those on edges of the entropy, those in which a group differs",
    paper="Group Critical-token Policy Optimization, 2509.22485",
    needs=frozenset(
        {
            "guided_entropy",  # which entropy_gradient is made of
            "entropy_gradient",
            "group_similarity",
            "policy_logprobs",
            "ref_logprobs",
        }
    ),
    needs_reference=True,
    kl_weights=_kl_weights,
    needs_kl_weights=True,
    refresh="its tokens are those of the rollout, and its weights are always taken anew at every update",
)
