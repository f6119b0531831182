"""From a step's number to groups worth training on: rounds of sampling, scoring, golden references. Updates nothing.

Dynamic sampling (DAPO, 2503.14476): groups of equal rewards teach nothing, so they are dropped, and other prompts are
sampled until the step is full or the rounds are used up. Randomness comes from (seed, step, round).
Shapes: P prompts in a step, G samples each, B samples, whole groups at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..advantages import zero_spread_groups
from ..config.schema import Config
from ..interfaces import Prompt, Rollout
from ..prompts.batches import PromptBatches
from ..rollout.sampling import GOLD, TRAINING, derive_seed
from .gold import failed_groups
from .mixture import Mixture


@dataclass(frozen=True)
class Scored:
    """A rollout and its rewards.

    Attributes:
        rollout: B samples.
        rewards: (B,) weighted sum of the parts as they are.
        parts: {name: (B,)} as they are, held-out ones included.
        normalized: {name: (B,)} of the parts that are normalised before they are weighed.
        target: (B,) what advantages are made of.
    """

    rollout: Rollout
    rewards: Tensor
    parts: Mapping[str, Tensor]
    normalized: Mapping[str, Tensor]
    target: Tensor

    def select(self, rows: Tensor) -> Scored:
        """The samples at `rows` (N,)."""
        return Scored(
            self.rollout.select(rows),
            self.rewards[rows],
            {name: part[rows] for name, part in self.parts.items()},
            {name: part[rows] for name, part in self.normalized.items()},
            self.target[rows],
        )

    def with_spread(self) -> Scored:
        """The groups that can teach something: those whose samples are not all worth the same."""
        size = self.rollout.group_size
        useful = ~zero_spread_groups(self.target, size)
        return self.select(useful.repeat_interleave(size).nonzero()[:, 0])

    def joined(self, other: Scored) -> Scored:
        """These samples, then the other's."""
        return Scored(
            self.rollout.joined(other.rollout),
            torch.cat([self.rewards, other.rewards]),
            {name: torch.cat([part, other.parts[name]]) for name, part in self.parts.items()},
            {n: torch.cat([part, other.normalized[n]]) for n, part in self.normalized.items()},
            torch.cat([self.target, other.target]),
        )


class GroupCollector:
    """Collects the groups of each step.

    Args:
        config: what to do.
        batches: the prompts in their order.
        sample: prompts and a seed to a rollout.
        judge: a step's number and a rollout to its rewards (B,) and their parts as they are.
        go_gold: a rollout, which groups failed (P,) and a seed to the rollout with golden references and their rows.

    Attributes:
        mixture: how the parts become the number that advantages are made of.
        refills: prompts asked for beyond `per_step` a step, since the start: with the step's number, the position in
            the prompts.
    """

    def __init__(
        self,
        config: Config,
        batches: PromptBatches,
        *,
        sample: Callable[[Sequence[Prompt], int], Rollout],
        judge: Callable[[int, Rollout], tuple[Tensor, Mapping[str, Tensor]]],
        go_gold: Callable[[Rollout, Tensor, int], tuple[Rollout, Tensor]],
    ) -> None:
        self.config, self.batches = config, batches
        self.sample, self.judge, self.go_gold = sample, judge, go_gold
        self.mixture = Mixture(config.reward)
        self.refills = 0

    def __call__(self, step: int) -> tuple[Scored, Scored, dict[str, float]]:
        """Everything that was sampled for a step, counted from 1; what to train on; and the counts of both.

        Golden references stand in the latter alone.
        """
        settings, per_step = self.config.rollout, self.batches.per_step
        first = (step - 1) * per_step + self.refills
        sampled: list[Scored] = []
        kept: list[Scored] = []
        counts: dict[str, float] = {}
        asked, missing = 0, per_step
        for turn in range(settings.max_rounds if settings.dynamic else 1):
            key = (self.config.train.seed, step, *([turn] if turn else []))
            prompts = self.batches.at(first + asked, missing)
            asked += missing
            rollout = self.sample(prompts, derive_seed(TRAINING, *key))
            sampled.append(self.scored(step, rollout, learn=True))
            kept.append(sampled[-1])
            if settings.gold:
                kept[-1] = self._with_gold(step, kept[-1], derive_seed(GOLD, *key), counts)
            if settings.dynamic:
                kept[-1] = kept[-1].with_spread()
            missing -= len(kept[-1].rollout) // settings.group_size
            if missing == 0:
                break
        self.refills += asked - per_step
        if settings.dynamic:
            trained = per_step - missing
            counts |= {"rounds": len(kept), "groups_dropped": asked - trained}
            counts |= {"groups_trained": trained}
            if trained == 0:  # nothing to learn from: groups without advantage
                kept = sampled[:1]
        return reduce(Scored.joined, sampled), reduce(Scored.joined, kept), counts

    def scored(self, step: int, rollout: Rollout, *, learn: bool) -> Scored:
        """A rollout and its rewards; `learn`: whether running statistics take them in."""
        rewards, parts = self.judge(step, rollout)
        if not self.mixture.normalizes:
            return Scored(rollout, rewards, parts, {}, rewards)
        target, normalized = self.mixture(parts, rollout.group_size, learn=learn)
        return Scored(rollout, rewards, parts, normalized, target)

    def _with_gold(self, step: int, scored: Scored, seed: int, counts: dict[str, float]) -> Scored:
        """Golden references in the place of failures, with `gold_reward` and the parts that they are judged at."""
        settings = self.config.rollout
        failed = failed_groups(scored.rewards, settings.group_size, settings.fail_below)
        rollout, rows = self.go_gold(scored.rollout, failed, seed)
        counts["gold"] = counts.get("gold", 0) + len(rows)
        counts["gold_missing"] = counts.get("gold_missing", 0) + int(failed.sum()) - len(rows)
        if len(rows) == 0:
            return scored
        references = replace(rollout.select(rows), group_size=1)
        _, judged = self.judge(step, references)
        parts = {n: part.index_copy(0, rows, judged[n]) for n, part in scored.parts.items()}
        rewards = scored.rewards.index_fill(0, rows, settings.gold_reward)
        return Scored(rollout, rewards, parts, {}, rewards)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next step to be the same."""
        return {"refills": self.refills, "mixture": self.mixture.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
        self.refills = state["refills"]
        self.mixture.load(state["mixture"])
