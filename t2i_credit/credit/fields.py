"""What a method may read: the names of the fields, and how those of whole images and groups are made.

Shapes: G samples of a prompt, B samples, T = H*W image tokens in raster order, V codes of C numbers each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ..interfaces import Rollout
from .critical import entropy_gradient, group_similarity
from .stage import opposed_similarity
from .visual import figure_distance

# What an entry may declare in `needs`, each (B, T): kept by the rollout; of the rollout's whole images and groups; computed anew at
# each update (policy_logprobs and ref_logprobs: of the taken tokens, in the policy's own form).
ROLLOUT_FIELDS = frozenset(
    {
        "logprobs",
        "negative_logprobs",
        "full_kl",
        "entropy",
        "guided_entropy",
        "code_spread",
        "code_shift",
        "value_advantage",  # of runs with a critic
        "reward_map",
    }
)
GROUP_FIELDS = frozenset(
    {"group_similarity", "opposed_similarity", "entropy_gradient", "figure_distance"}
)
UPDATE_FIELDS = frozenset({"hellinger", "normalized_entropy", "policy_logprobs", "ref_logprobs"})


def rollout_fields(
    needs: frozenset[str],
    rollout: Rollout,
    advantages: Tensor,
    *,
    codebook: Tensor,
    grid: tuple[int, int],
) -> dict[str, Tensor]:
    """{name: (B, T)} of those among `needs` that no update changes: kept by the rollout, or computed of its groups.

    Args:
        needs: what a method reads.
        rollout: whole groups.
        advantages: (B,).
        codebook, grid: of the model.
    """
    kept = {name: getattr(rollout, name) for name in needs - GROUP_FIELDS - UPDATE_FIELDS}
    return kept | group_fields(
        needs & GROUP_FIELDS,
        tokens=rollout.tokens,
        codebook=codebook,
        grid=grid,
        group_size=rollout.group_size,
        advantages=advantages,
        guided_entropy=rollout.guided_entropy,
    )


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
    """The evidence called `names` (of GROUP_FIELDS) of whole groups.

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
