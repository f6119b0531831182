"""From the parts of a reward to the number that advantages are made of.

A part is taken as it is, as a z-score over all images so far, or as a z-score within its group, then weighted. Scores
no image. Shapes: P prompts, G samples each, B = P*G samples (sample b belongs to prompt b // G).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..advantages import group_normalized

if TYPE_CHECKING:
    from ..config.sections import RewardConfig

EPS = 1e-4  # added to a standard deviation, as in group_normalized


class RunningMoments:
    """Mean and standard deviation of every value seen so far, in float64 (Chan's parallel update)."""

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self.count, self.mean, self.squares = count, mean, squares

    def add(self, values: Tensor) -> None:
        """Takes (B,) more values in."""
        values = values.double()
        count, mean = len(values), float(values.mean())
        total, step = self.count + count, mean - self.mean
        self.squares += float((values - mean).square().sum())
        self.squares += step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total

    def z(self, values: Tensor) -> Tensor:
        """(values - mean) / (std + 1e-4), (B,) float32, with the unbiased std; 0 before a second value."""
        std = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return ((values.double() - self.mean) / (std + EPS)).float()

    def state(self) -> dict[str, float]:
        """For a checkpoint; `RunningMoments(**state)` is the same again."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}


class Mixture:
    """The weighted sum of the parts that are trained on, each normalised as its configuration says.

    running: z-score over all training images so far, those of this batch included. group: z-score within the group,
    so that no part drowns another whatever its spread (GDPO, 2601.05242).

    Args:
        parts: the reward section, name to entry; held-out parts do not count.
    """

    def __init__(self, parts: Mapping[str, RewardConfig]) -> None:
        self.parts = {name: part for name, part in parts.items() if not part.heldout}
        self.heldout = [name for name, part in parts.items() if part.heldout]
        self.running = {
            n: RunningMoments() for n, p in self.parts.items() if p.normalize == "running"
        }

    @property
    def normalizes(self) -> bool:
        """Whether any part is normalised; otherwise the total is the weighted sum of the parts as they are."""
        return any(part.normalize != "none" for part in self.parts.values())

    @torch.no_grad()
    def __call__(
        self, values: Mapping[str, Tensor], group_size: int, *, learn: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and the normalised parts.

        Args:
            values: {name: (B,)} of all parts, as they are.
            group_size: G.
            learn: whether these images count in the running mean and spread.

        Returns:
            (B,) float32, and {name: (B,)} of those parts that are normalised.
        """
        normalized = {}
        total = torch.zeros_like(next(iter(values.values())))
        for name, part in self.parts.items():
            value = values[name]
            if part.normalize == "running":
                if learn:
                    self.running[name].add(value)
                value = normalized[name] = self.running[name].z(value)
            elif part.normalize == "group":
                value = normalized[name] = group_normalized(value, group_size, eps=EPS)
            total = total + part.weight * value
        return total, normalized

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: moments.state() for name, moments in self.running.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a checkpoint; a part that it does not know begins anew."""
        for name in set(self.running) & set(state):
            self.running[name] = RunningMoments(**state[name])
