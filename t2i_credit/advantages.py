"""Advantages: rewards of a group of samples become one number per sample. Never looks at tokens.

Shapes: P prompts, G samples of each, B = P*G samples (sample b belongs to prompt b // G).
Every function takes rewards (B,), returns (B,) float32, detached, and gives exactly 0 to a group of
equal rewards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import UserError


@torch.no_grad()
def group_normalized(rewards: Tensor, group_size: int, *, eps: float = 1e-4) -> Tensor:
    """(r - mean) / (std + eps) within the group, with the unbiased std (GRPO, 2402.03300).

    Args:
        rewards: (B,).
        group_size: G, at least 2.
        eps: at least 0; keeps groups of nearly equal rewards from blowing up; in units of reward.

    Returns:
        (B,) float32.

    Raises:
        UserError: a group of 1, B that is no multiple of it, or a negative eps.
    """
    if eps < 0:
        raise UserError(f"group_normalized needs eps >= 0, got {eps}")
    groups = _grouped(rewards, group_size)
    centered = _centered(groups)
    found = centered / (groups.std(dim=1, keepdim=True) + eps)
    return torch.where(centered == 0, 0.0, found).flatten()  # 0 / 0 without eps


@torch.no_grad()
def group_centered(rewards: Tensor, group_size: int) -> Tensor:
    """r - mean of the group, without the division by std (Dr. GRPO, 2503.20783).

    Args and errors as in `group_normalized`; (B,) to (B,) float32.
    """
    return _centered(_grouped(rewards, group_size)).flatten()


@torch.no_grad()
def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """r - mean of the other G - 1 samples, which is (r - mean) G / (G - 1) (RLOO, 2402.14740).

    Args and errors as in `group_normalized`; (B,) to (B,) float32.
    """
    return (_centered(_grouped(rewards, group_size)) * (group_size / (group_size - 1))).flatten()


@torch.no_grad()
def zero_spread_groups(rewards: Tensor, group_size: int) -> Tensor:
    """Groups that teach nothing, all their rewards being equal (DAPO drops them, 2503.14476).

    Args and errors as in `group_normalized`; (B,) to (P,) bool.
    """
    groups = _grouped(rewards, group_size)
    return groups.amax(dim=1) == groups.amin(dim=1)


def _grouped(rewards: Tensor, group_size: int) -> Tensor:
    """(B,) rewards as (P, G) float32."""
    assert rewards.dim() == 1, f"rewards must be (B,), got {tuple(rewards.shape)}"
    if group_size < 2:
        raise UserError(
            f"group_size is {group_size}: samples of one prompt are compared, so at least 2 are needed"
        )
    if len(rewards) == 0 or len(rewards) % group_size:
        raise UserError(
            f"{len(rewards)} rewards cannot be split into groups of group_size {group_size}: "
            "their number must be a positive multiple of it"
        )
    return rewards.float().reshape(-1, group_size)


def _centered(groups: Tensor) -> Tensor:
    """(P, G) minus the mean of each row, (P, G)."""
    # the rounded mean of equal rewards can miss them, and dividing by eps would make that a signal
    equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    return torch.where(equal, 0.0, groups - groups.mean(dim=1, keepdim=True))


ADVANTAGES: dict[str, Callable[..., Tensor]] = {
    "group_normalized": group_normalized,
    "group_centered": group_centered,
    "leave_one_out": leave_one_out,
}
