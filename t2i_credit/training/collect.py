"""From a step's number to groups worth training on: sampling, scoring, rounds, golden references. Updates nothing.

Dynamic sampling (DAPO, 2503.14476): groups of equal rewards teach nothing, so they are dropped, and other prompts are
sampled until the step is full or the rounds are used up. Randomness comes from (seed, step, round).
Shapes: P prompts in a step, G samples each, B samples, whole groups at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..advantages import zero_spread_groups
from ..config.schema import Config
from ..errors import TrainingError
from ..interfaces import Prompt, Rollout
from ..prompts.batches import PromptBatches
from ..rollout.sampling import GOLD, MAP, TRAINING, derive_seed, keeping, sample_rollout
from .critic.critic import Critic
from .gold import failed_groups
from .metrics import StepClock
from .mixture import Mixture
from .processes import gather_rollout, gather_rows, gathered, my_share

Reward = Callable[[Tensor, Sequence[Prompt]], tuple[Tensor, dict[str, Tensor]]]
MapReward = Callable[..., Tensor]


def sample_together(
    prompts: Sequence[Prompt],
    seed: int,
    *,
    alternatives: int = 0,
    config: Config,
    sampler: Any,
    needs: Collection[str],
    accelerator: Accelerator,
) -> Rollout:
    """A rollout of the prompts, each process sampling its share.

    Args:
        alternatives: how many of the likeliest other codes of every token are kept.
        config: how many images of each prompt, and how.
        sampler: the model without accelerate's wrapping.
        needs: the rollout's fields that the credit reads.
        accelerator: precision, and which processes there are.
    """
    settings = config.rollout
    mine = my_share(len(prompts), accelerator)
    with gathered(sampler), accelerator.autocast():
        part = sample_rollout(
            sampler,
            prompts[mine],
            group_size=settings.group_size,
            **settings.sampling,
            seed=seed,
            batch_size=settings.batch_size,
            **keeping(needs),
            alternatives=alternatives,
            negative_branch=not {"negative_logprobs", "full_kl"}.isdisjoint(needs),
            first_sample=mine.start * settings.group_size,
        )
    return gather_rollout(part, prompts, accelerator)


def judge_together(
    step: int, rollout: Rollout, *, reward: Reward, accelerator: Accelerator, clock: StepClock
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total reward (B,) and its parts, each process judging its share; what a reward refuses is told with the step."""
    size = rollout.group_size
    prompts = len(rollout) // size
    mine = my_share(prompts, accelerator)
    rows = slice(mine.start * size, mine.stop * size)
    with clock("reward"):
        try:
            total, parts = reward(rollout.images[rows], rollout.prompts[rows])
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}; no update was made") from error
        total = gather_rows(total, prompts, accelerator)
        return total, {name: gather_rows(p, prompts, accelerator) for name, p in parts.items()}


def map_together(
    step: int,
    scored: Scored,
    *key: int,
    maps: MapReward | None,
    sampler: Any,
    accelerator: Accelerator,
    clock: StepClock,
) -> Scored:
    """The samples with where the reward looked, each process finding out about its share; as they are if no part has a map,
    or they have it.

    Args:
        key: of the seed of redrawn tokens.
        maps: a model, a rollout, its parts' rewards and a seed to the map (B, T); None = no part has one.
        sampler: the model without accelerate's wrapping.
    """
    rollout = scored.rollout
    if maps is None or rollout.reward_map is not None:
        return scored
    size = rollout.group_size
    prompts = len(rollout) // size
    mine = my_share(prompts, accelerator)
    rows = torch.arange(mine.start * size, mine.stop * size, device=rollout.tokens.device)
    with clock("map"), gathered(sampler), accelerator.autocast():
        try:
            found = maps(
                sampler,
                rollout.select(rows),
                {name: part[rows] for name, part in scored.parts.items()},
                seed=derive_seed(MAP, *key),
                first_sample=mine.start * size,
            )
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}; no update was made") from error
        found = gather_rows(found, prompts, accelerator)
    return replace(scored, rollout=replace(rollout, reward_map=found))


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


@dataclass
class GroupCollector:
    """Collects the groups of each step.

    Args:
        config: what to do.
        batches: the prompts in their order.
        judge: a step's number and a rollout to its rewards (B,) and their parts as they are.
        go_gold: a rollout, which groups failed (P,) and a seed to the rollout with golden references and their rows.
        critic: what says the values of whatever is scored, or None.

    Attributes:
        mixture: how the parts become the number that advantages are made of.
        refills: prompts asked for beyond `per_step` a step, since the start. This and the step's number say
            which prompts come next.
    """

    config: Config
    batches: PromptBatches
    judge: Callable[[int, Rollout], tuple[Tensor, Mapping[str, Tensor]]]
    go_gold: Callable[[Rollout, Tensor, int], tuple[Rollout, Tensor]]
    critic: Critic | None = None
    refills: int = 0

    def __post_init__(self) -> None:
        self.mixture = Mixture(self.config.reward)

    def scored(
        self, rollout: Rollout, rewards: Tensor, parts: Mapping[str, Tensor], *, learn: bool
    ) -> Scored:
        """A rollout and its rewards (B,) with their parts; `learn`: whether running statistics take them in."""
        if self.critic is not None:
            rollout = self.critic.valued(rollout, rewards)
        if not self.mixture.normalizes:
            return Scored(rollout, rewards, parts, {}, rewards)
        target, normalized = self.mixture(parts, rollout.group_size, learn=learn)
        return Scored(rollout, rewards, parts, normalized, target)

    def asked(self, step: int) -> int:
        """Prompts asked for in the steps up to this one: the position in the prompts."""
        return step * self.batches.per_step + self.refills

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next step to be the same."""
        per_step = self.batches.per_step
        return {"refills": self.refills, "per_step": per_step, "mixture": self.mixture.state()}

    def load(self, state: Mapping[str, Any], step: int = 0) -> None:
        """Takes up the state of a checkpoint of a step; with another `per_step` the prompts go on where they were."""
        per_step = self.batches.per_step
        self.refills = state["refills"] + step * (state.get("per_step", per_step) - per_step)
        self.mixture.load(state["mixture"])


class StepGroups:
    """The groups of one step, counted from 1, which come round by round.

    Attributes:
        counts: what was dropped, trained on and replaced, for the metrics; complete after the last round.
    """

    def __init__(self, collector: GroupCollector, step: int) -> None:
        self.collector, self.step = collector, step
        self.counts: dict[str, float] = {}
        self._sampled: list[Scored] = []
        self._kept: list[Scored] = []
        self._missing = collector.batches.per_step
        self._key: tuple[int, ...] = ()  # of the round's noise

    def rounds(self) -> Iterator[tuple[list[Prompt], int]]:
        """The prompts and the seed of every round, until the step is full or the rounds are used up.

        What a round sampled must be added before the next one is asked for.
        """
        collector, settings = self.collector, self.collector.config.rollout
        per_step = collector.batches.per_step
        first = collector.asked(self.step - 1)
        asked = 0
        for turn in range(settings.max_rounds if settings.dynamic else 1):
            self._key = (collector.config.train.seed, self.step, *([turn] if turn else []))
            prompts = collector.batches.at(first + asked, self._missing)
            asked += self._missing
            yield prompts, derive_seed(TRAINING, *self._key)
            if self._missing == 0:
                break
        collector.refills += asked - per_step
        if settings.dynamic:
            trained = per_step - self._missing
            self.counts |= {"rounds": len(self._kept), "groups_dropped": asked - trained}
            self.counts |= {"groups_trained": trained}
            if trained == 0:  # nothing to learn from: groups without advantage
                self._kept = self._sampled[:1]

    def add(self, rollout: Rollout, rewards: Tensor, parts: Mapping[str, Tensor]) -> None:
        """What a round sampled, its rewards (B,) and their parts."""
        settings = self.collector.config.rollout
        scored = self.collector.scored(rollout, rewards, parts, learn=True)
        self._sampled.append(scored)
        if settings.gold:
            scored = self._with_gold(scored)
        if settings.dynamic:
            scored = scored.with_spread()
        self._kept.append(scored)
        self._missing -= len(scored.rollout) // settings.group_size

    @property
    def sampled(self) -> Scored:
        """Everything that was sampled."""
        return reduce(Scored.joined, self._sampled)

    @property
    def trained(self) -> Scored:
        """What to train on; golden references stand here alone."""
        return reduce(Scored.joined, self._kept)

    def _with_gold(self, scored: Scored) -> Scored:
        """Golden references in the place of failures, with `gold_reward` and the parts that they are judged at."""
        settings, counts = self.collector.config.rollout, self.counts
        failed = failed_groups(scored.rewards, settings.group_size, settings.fail_below)
        seed = derive_seed(GOLD, *self._key)
        rollout, rows = self.collector.go_gold(scored.rollout, failed, seed)
        counts["gold"] = counts.get("gold", 0) + len(rows)
        counts["gold_missing"] = counts.get("gold_missing", 0) + int(failed.sum()) - len(rows)
        if len(rows) == 0:
            return scored
        references = replace(rollout.select(rows), group_size=1)
        _, judged = self.collector.judge(self.step, references)
        parts = {n: part.index_copy(0, rows, judged[n]) for n, part in scored.parts.items()}
        rewards = scored.rewards.index_fill(0, rows, settings.gold_reward)
        return Scored(rollout, rewards, parts, {}, rewards)
