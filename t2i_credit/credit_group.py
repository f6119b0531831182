"""Credit from whole images and groups: critical tokens (2509.22485), similarity (STAGE, 2509.25027), figure and ground.

Shapes: P prompts, G samples each, B = P*G (sample b belongs to prompt b // G), T = H*W image tokens in raster order,
C numbers a code vector; mask (B, T) bool, True = counts in the loss. Public through credit.py. Never sees the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from .credit_rows import row_mean_one
from .errors import UserError

ENTROPY_RANGE = (
    0.1,
    0.8,
)  # as published: edges are looked for from 10% of the tokens on, in 80% of them
MAX_LOG_RATIO = 0.5  # nats, as published
ROUNDING = 1e-6  # a cosine in float32 is not known better


# ---- evidence, one number per token ----


@torch.no_grad()
def group_fields(
    names: Collection[str],
    *,
    tokens: Tensor,
    codebook: Tensor,
    grid: tuple[int, int],
    group_size: int,
    advantages: Tensor,
    guided_entropy: Tensor | None = None,
) -> dict[str, Tensor]:
    """The evidence called `names` (of GROUP_FIELDS in credit.py) of whole groups.

    Args:
        tokens: (B, T) codes.
        codebook: (V, C) code vectors.
        grid: (H, W).
        group_size: G.
        advantages: (B,).
        guided_entropy: (B, T), for entropy_gradient.

    Returns:
        {name: (B, T) float32}.
    """

    def edges() -> Tensor:
        assert guided_entropy is not None, "entropy_gradient is made of guided_entropy"
        return entropy_gradient(guided_entropy, grid)

    known: dict[str, Callable[[], Tensor]] = {
        "group_similarity": lambda: group_similarity(codebook[tokens], group_size),
        "opposed_similarity": lambda: opposed_similarity(codebook[tokens], advantages, group_size),
        "entropy_gradient": edges,
        "figure_distance": lambda: figure_distance(codebook[tokens]),
    }
    return {name: known[name]() for name in names}


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
def figure_distance(vectors: Tensor) -> Tensor:
    """How unlike the picture's mean look a token looks: half the distance of its unit vector from the mean's direction.

    Most of a picture is ground, so its mean look is nearly the ground's, and what stands out is the figure.

    Args:
        vectors: (B, T, C) code vectors of the sampled tokens.

    Returns:
        (B, T) float32 in [0, 1]; 0 everywhere for a picture of one code.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    mean = F.normalize(unit.mean(1, keepdim=True), dim=-1)
    apart = (1 - (unit * mean).sum(-1)) / 2
    return torch.where(apart > ROUNDING, apart, 0.0).sqrt()


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


# ---- weights: row mean 1 over the mask ----


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


def _largest(values: Tensor, allowed: Tensor, count: Tensor) -> Tensor:
    """(B, T) bool: the `count` (B, 1) largest values of each row among the allowed ones; ties by position."""
    order = torch.where(allowed, values, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return allowed & (rank < count)
