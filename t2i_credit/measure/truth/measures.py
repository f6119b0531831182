"""Is the credit right? Four measures of credit assigners on one policy: where it lies, what it decides, whether the
negative prompt steers it, and whether it cleans the gradient. Trains nothing and changes no weight.

Model, reward and detector are passed in. Shapes: P prompts, G samples of each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config.schema import Config
from ...errors import PromptError, UserError
from ...interfaces import Prompt, Rollout
from ...prompts.batches import PromptBatches
from ...prompts.records import distinct
from ...rollout.sampling import MAP, TRUTH, derive_seed, keeping, sample_rollout
from ...training.collect import MapReward
from ...training.metrics import COVERAGE, Objects, object_tokens
from ...training.policy import Policy
from .assigners import BASELINES, Assigner, rollout_needs, scores_of
from .causality import Sampled, causality, decodings
from .gradients import gradient_agreement, token_advantages_of
from .localisation import localisation, one_object_texts, specificity
from .oracle import FEWEST, oracle, row_values

MEASURES = ("localisation", "causality", "specificity", "gradients")
FORMAT = 1

Describe = Callable[[Rollout], Objects]
Reward = Callable[[Tensor, Sequence[Prompt]], tuple[Tensor, dict[str, Tensor]]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TruthSettings:
    """How much is measured.

    Attributes:
        measures: names out of MEASURES.
        per_task: prompts of each task, at least 1.
        images: G, images of each prompt, at least 2.
        share: k, the share of tokens that causality changes, in (0, 1).
        repeats: independent redraws of causality, at least 1.
        coverage: share of a token's cell that objects must cover, in (0, 1].
        oracle: K, continuations of every unfinished picture for its true value, at least 8; 0 = none.
        batches: independent batches of the gradients, at least 3; bias against a large batch needs 21.
        seed: of prompts and noise; its noise is never that of training or evaluation.

    Raises:
        UserError: a setting out of range.
    """

    measures: tuple[str, ...] = MEASURES
    per_task: int = 8
    images: int = 4
    share: float = 0.2
    repeats: int = 1
    coverage: float = COVERAGE
    batches: int = 24
    oracle: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in MEASURES:
                raise UserError(f"--measure: {name!r} is not allowed; {', '.join(MEASURES)}")
        object.__setattr__(self, "measures", tuple(dict.fromkeys(self.measures)))
        wrong = {
            f"--prompts: {self.per_task}; at least 1": self.per_task < 1,
            f"--images: {self.images}; at least 2": self.images < 2,
            f"--share: {self.share}; above 0, below 1": not 0 < self.share < 1,
            f"--repeats: {self.repeats}; at least 1": self.repeats < 1,
            f"--coverage: {self.coverage}; above 0, at most 1": not 0 < self.coverage <= 1,
            f"--batches: {self.batches}; at least 3": self.batches < 3,
            f"--oracle: {self.oracle}; 0 (none) or at least {FEWEST} continuations, or the values drown in their noise": (
                self.oracle != 0 and self.oracle < FEWEST
            ),
            f"--seed: {self.seed}; at least 0": self.seed < 0,
        }
        for message, is_wrong in wrong.items():
            if is_wrong:
                raise UserError(message)

    @property
    def takes_masks(self) -> bool:
        """Whether any of the measures asks where the objects are."""
        return not {"localisation", "specificity"}.isdisjoint(self.measures)


def truth_prompts(prompts: Sequence[Prompt], per_task: int, seed: int) -> list[Prompt]:
    """`per_task` distinct prompts of each task, drawn from `seed`.

    Raises:
        PromptError: a prompt has no record of what it asks for, so it has no task, and nothing has a mask.
    """
    tasks: dict[str, list[Prompt]] = {}
    for prompt in distinct(prompts):
        if prompt.spec is None:
            raise PromptError(
                f"prompt {prompt.text!r}: no spec, so its task and the masks of its objects are unknown; "
                "credit truth takes prompts with GenEval records"
            )
        tasks.setdefault(prompt.spec["tag"], []).append(prompt)
    chosen = []
    for number, members in enumerate(tasks.values()):
        order = np.random.default_rng([TRUTH, seed, number]).permutation(len(members))
        chosen += [members[i] for i in order[:per_task]]
    return chosen


@dataclass
class Measurement:
    """The measures on one policy.

    Attributes:
        config: how images are sampled, which policy is trained, what the negative prompt is.
        policy: of an ImageTokenModel that is an nn.Module.
        reward, advantage: as the trainer takes them.
        prompts: the whole set, each with its record.
        describe: rollout to the objects of each sample, as the run folder keeps them; for localisation and specificity.
        assigners: the credits to compare.
        settings: how much is measured.
        maps: where the reward looked, as `map_together` takes it; None = no part says so.
        progress: called with (parts done, of).
        valued: a rollout and its rewards (B,) to the rollout with what a critic says of it, if there is one.
    """

    config: Config
    policy: Policy
    reward: Reward
    advantage: Callable[[Tensor, int], Tensor]
    prompts: Sequence[Prompt]
    describe: Describe
    assigners: Sequence[Assigner]
    settings: TruthSettings
    maps: MapReward | None = None
    progress: Progress = lambda done, of: None
    valued: Callable[[Rollout, Tensor], Rollout] = lambda rollout, rewards: rollout

    def run(self) -> dict[str, Any]:
        """Runs the measures.

        Returns:
            format, settings, and one entry per measure, fit for JSON; see the measures' own functions.

        Raises:
            PromptError: a prompt without a record, or specificity alone is asked for and no prompt has two objects.
        """
        settings, measures = self.settings, self.settings.measures
        chosen = truth_prompts(self.prompts, settings.per_task, settings.seed)
        if measures == ("specificity",) and not any(map(one_object_texts, chosen)):
            raise PromptError(
                "specificity needs prompts with two objects; none of this set has them"
            )
        rankers = len({*BASELINES, *(a.name for a in self.assigners)}) - 2
        self.finished, self.total = 0, 1
        self.total += ("causality" in measures) * decodings(rankers, settings.repeats)
        self.total += ("gradients" in measures) * settings.batches
        self.progress(0, self.total)
        found: dict[str, Any] = {"format": FORMAT, "settings": asdict(settings)}
        self.total += self.policy.model.grid[0] * (settings.oracle > 0)
        if set(measures) - {"gradients"} or settings.oracle:
            found |= self.of_pictures(chosen)
        if "gradients" in measures:  # on batches like those of training
            found["gradients"] = gradient_agreement(
                self.policy,
                self._batches(),
                self.assigners,
                self.config,
                seed=settings.seed,
                done=self._done,
            )
        return found

    def of_pictures(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """The measures that look at the same sampled images."""
        settings = self.settings
        seed = derive_seed(TRUTH, settings.seed)
        rollout = self._sample(prompts, settings.images, seed)
        rewards, parts = self.reward(rollout.images, rollout.prompts)
        rollout = self.valued(rollout, rewards)
        rollout = self._located(rollout, parts, 0)
        advantages = self.advantage(rewards, rollout.group_size)
        objects = self.describe(rollout) if settings.takes_masks else []
        scores = scores_of(self.assigners, rollout, advantages, self.policy, seed=settings.seed)
        grid, (height, width) = self.policy.model.grid, rollout.images.shape[-2:]
        self._done()
        found: dict[str, Any] = {"prompts": len(prompts), "images": len(rollout)}
        found["reward"] = float(rewards.mean())
        if "localisation" in settings.measures:
            on_object = object_tokens(objects, grid, (height, width), coverage=settings.coverage)
            found["localisation"] = localisation(scores, on_object, rollout.group_size, BASELINES)
        if "specificity" in settings.measures:
            found["specificity"] = specificity(
                self.policy,
                rollout,
                advantages,
                objects,
                self.assigners,
                coverage=settings.coverage,
            )
        sampled = Sampled(
            self.policy.model,
            rollout,
            rewards,
            seed,
            self.config.rollout.sampling,
            lambda tokens, rows: self._score(tokens, [rollout.prompts[i] for i in rows.tolist()]),
            self.policy.batch_prompts(rollout),
        )
        if settings.oracle:
            values, errors = row_values(
                sampled, settings.oracle, seed=settings.seed, done=self._done
            )
            pushed = token_advantages_of(
                rollout, advantages, self.assigners, self.policy, settings.seed
            )
            found["oracle"] = oracle(values, errors, pushed, rollout.group_size)
        if "causality" in settings.measures:
            found["causality"] = causality(
                sampled,
                # equal scores would pick at random, and places are no credit
                {n: s for n, s in scores.items() if n not in ("uniform", "centre")},
                share=settings.share,
                repeats=settings.repeats,
                seed=settings.seed,
                done=self._done,
            )
        return found

    def _batches(self) -> Iterator[tuple[Rollout, Tensor]]:
        settings = self.config.prompts
        batches = PromptBatches(
            self.prompts,
            per_step=min(settings.per_step, len(self.prompts)),
            seed=derive_seed(TRUTH, self.settings.seed, 1),
            balance=settings.balance,
        )
        for number in range(self.settings.batches):
            seed = derive_seed(TRUTH, self.settings.seed, 2, number)
            rollout = self._sample(batches.batch(number), self.config.rollout.group_size, seed)
            rewards, parts = self.reward(rollout.images, rollout.prompts)
            rollout = self.valued(rollout, rewards)
            rollout = self._located(rollout, parts, 1, number)
            yield rollout, self.advantage(rewards, rollout.group_size)

    def _sample(self, prompts: Sequence[Prompt], group_size: int, seed: int) -> Rollout:
        return sample_rollout(
            self.policy.model,
            prompts,
            group_size=group_size,
            seed=seed,
            batch_size=self.config.rollout.batch_size,
            **keeping(rollout_needs(self.assigners)),
            **self.config.rollout.sampling,
        )

    def _located(self, rollout: Rollout, parts: Mapping[str, Tensor], *use: int) -> Rollout:
        """The rollout with where the reward looked, if a credit reads that."""
        if self.maps is None or not any("reward_map" in one.needs for one in self.assigners):
            return rollout
        seed = derive_seed(MAP, TRUTH, self.settings.seed, *use)
        return replace(rollout, reward_map=self.maps(self.policy.model, rollout, parts, seed=seed))

    @torch.no_grad()
    def _score(self, tokens: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Rewards (B,) of tokens (B, T), decoded in batches."""
        size = self.config.rollout.batch_size or len(tokens)
        images = torch.cat([self.policy.model.decode(part).float() for part in tokens.split(size)])
        return self.reward(images, prompts)[0]

    def _done(self) -> None:
        self.finished += 1
        self.progress(min(self.finished, self.total), self.total)
