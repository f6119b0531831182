"""The latest batches of rollouts, on the CPU, for a critic to learn from again. Draws, and learns nothing.

Shapes: P prompts, G samples each, T image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...interfaces import Rollout


@dataclass(frozen=True)
class Batch:
    """Groups of samples.

    Attributes:
        texts: P prompts.
        tokens: (P, G, T) int32.
        rewards: (P, G) float32 in [0, 1].
    """

    texts: tuple[str, ...]
    tokens: Tensor
    rewards: Tensor

    @classmethod
    def of(cls, rollout: Rollout, rewards: Tensor) -> Batch:
        """What a rollout and its rewards (B,), in [0, 1], are to a critic."""
        size = rollout.group_size
        texts = tuple(prompt.text for prompt in rollout.prompts[::size])
        tokens = rollout.tokens.unflatten(0, (-1, size)).int().cpu()
        return cls(texts, tokens, rewards.unflatten(0, (-1, size)).float().cpu())

    def select(self, groups: Sequence[int]) -> Batch:
        """The groups of these numbers."""
        rows = torch.tensor(groups)
        return Batch(tuple(self.texts[i] for i in groups), self.tokens[rows], self.rewards[rows])

    def joined(self, other: Batch) -> Batch:
        """These groups, then the other's."""
        return Batch(
            self.texts + other.texts,
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.rewards, other.rewards]),
        )

    def __len__(self) -> int:
        return len(self.texts)


class Replay:
    """The latest `most` batches.

    Attributes:
        batches: the oldest first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.batches: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """One more; the oldest goes where there are too many. Groups of another size start anew."""
        if self.batches and self.batches[-1].tokens.shape[1:] != batch.tokens.shape[1:]:
            self.batches = []
        self.batches = [*self.batches, batch][-self.most :]

    def draw(self, groups: int, seed: int) -> Batch:
        """So many groups of all batches, at random; fewer where there are fewer."""
        places = [(i, k) for i, batch in enumerate(self.batches) for k in range(len(batch))]
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        chosen = [places[i] for i in order[:groups].tolist()]
        parts = [self.batches[i].select([k]) for i, k in chosen]
        found = parts[0]
        for part in parts[1:]:
            found = found.joined(part)
        return found

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(batch.rewards.numel() for batch in self.batches)

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint or a critic's file."""
        return [
            {"texts": list(one.texts), "tokens": one.tokens, "rewards": one.rewards}
            for one in self.batches
        ]

    def load(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Takes up a state."""
        found = [Batch(tuple(b["texts"]), b["tokens"].int(), b["rewards"]) for b in batches]
        self.batches = found[-self.most :]
