"""Values of prefixes as pure arithmetic: the group baseline as a logit, differences in the advantage's unit, trust. Knows no model.

Shapes: P prompts, G samples each, B = P*G samples, T image tokens; values (B, T + 1): before each token, and after the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

TINY = 1e-12


@torch.no_grad()
def others_mean(rewards: Tensor, group_size: int) -> Tensor:
    """The mean reward of the group's other samples: (B,) to (B,) float32."""
    groups = rewards.float().unflatten(0, (-1, group_size))
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return others.flatten()


@torch.no_grad()
def others_logit(rewards: Tensor, group_size: int) -> Tensor:
    """The logit of `others_mean`, held half a sample, 1 / (2 G), away from 0 and 1.

    Args:
        rewards: (B,) in [0, 1].
        group_size: G, at least 2.

    Returns:
        (B,) float32, finite.
    """
    margin = 0.5 / group_size
    return torch.logit(others_mean(rewards, group_size).clamp(margin, 1 - margin))


@torch.no_grad()
def advantage_unit(advantages: Tensor, rewards: Tensor, group_size: int) -> Tensor:
    """What a difference of rewards is in units of the advantage, by group: sum |A| / sum |r - mean|.

    1 / (std + eps) for GRPO's advantages, 1 where they are only centred, 0 for a group of equal rewards.

    Args:
        advantages, rewards: (B,).
        group_size: G.

    Returns:
        (B,) float32.
    """
    groups = rewards.float().unflatten(0, (-1, group_size))
    apart = (groups - groups.mean(1, keepdim=True)).abs().sum(1)
    pushed = advantages.float().unflatten(0, (-1, group_size)).abs().sum(1)
    unit = torch.where(pushed > 0, pushed / apart.clamp(min=TINY), 0.0)
    return unit.repeat_interleave(group_size)


class Trust:
    """How far a critic is believed, from samples that it has not learned from.

    Args:
        window: how many of the latest batches count.

    Attributes:
        batches: of the window, the oldest first; of each {sum over samples: T + 1 numbers}: the squared error of the
            values by position; that of the group's mean; V_t - V_0 squared, and times R - V_0.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.batches: list[dict[str, list[float]]] = []

    @torch.no_grad()
    def add(self, values: Tensor, rewards: Tensor, group_size: int) -> None:
        """A new batch: values (B, T + 1) and rewards (B,) of whole groups, in units of reward."""
        values, rewards = values.double(), rewards.double()
        plain = rewards - others_mean(rewards, group_size).double()
        moved = values - values[:, :1]
        sums = {
            "error": (rewards[:, None] - values).square(),
            "plain": plain[:, None].square().expand_as(values),
            "moved": moved.square(),
            "crossed": moved * (rewards - values[:, 0])[:, None],
        }
        found = {name: each.sum(0).tolist() for name, each in sums.items()}
        self.batches = [*self.batches, found][-self.window :]

    def explained(self) -> Tensor:
        """(T + 1) 1 - squared error / that of the group's mean, by position, over the window; 0 where both are 0."""
        error, plain = self._sum("error").sum(0), self._sum("plain").sum(0)
        return torch.where(plain > TINY, 1 - error / plain.clamp(min=TINY), 0.0)

    @property
    def calibration(self) -> float:
        """The slope of R - V_0 against V_t - V_0, all positions together: 1 = calibrated, below 1 = too sure."""
        moved = float(self._sum("moved").sum())
        return float(self._sum("crossed").sum()) / moved if moved > TINY else 0.0

    @property
    def weight(self) -> float:
        """sqrt(E - its standard error), 0 where that is negative; see `told`.

        The root is the correlation with the truth of a calibrated critic that explains as much.
        """
        explained, error = self.told()
        return math.sqrt(min(1.0, max(0.0, explained - error)))

    def told(self) -> tuple[float, float]:
        """E = 1 - mean over t of error_t / error_0, and its standard error: the jackknife's over the window's batches.

        E is what the tokens tell beyond the prompt: changes of the value are what is made use of. Fewer than three
        batches are not believed: (0, 0).
        """
        if (count := len(self.batches)) < 3:
            return 0.0, 0.0
        error = self._sum("error")
        last, first = error[:, 1:].mean(1), error[:, 0]
        if float(first.sum()) <= TINY:
            return 0.0, 0.0
        explained = 1 - last.sum() / first.sum()
        rest = 1 - (last.sum() - last) / (first.sum() - first).clamp(min=TINY)
        spread = ((count - 1) / count * (rest - rest.mean()).square().sum()).sqrt()
        return float(explained), float(spread)

    def metrics(self) -> dict[str, float]:
        """By name, see training/metrics.py."""
        if not self.batches:
            return {}
        explained = self.explained()
        last = len(explained) - 1
        found = {f"critic/explained/{q}": float(explained[last * q // 100]) for q in QUARTERS}
        found["critic/explained"] = float(explained.mean())
        return found | {"critic/calibration": self.calibration, "critic/weight": self.weight}

    def state(self) -> list[dict[str, list[float]]]:
        """For a checkpoint."""
        return list(self.batches)

    def load(self, batches: list[Mapping[str, Any]]) -> None:
        """Takes up a state."""
        self.batches = [{name: list(sums) for name, sums in one.items()} for one in batches]
        self.batches = self.batches[-self.window :]

    def _sum(self, name: str) -> Tensor:
        """(batches, T + 1) float64."""
        return torch.tensor([one[name] for one in self.batches], dtype=torch.float64)


QUARTERS = (
    25,
    50,
    75,
    100,
)  # percent of a picture's tokens after which the explained variance is logged
