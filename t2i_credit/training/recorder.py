"""What the run folder keeps of a step, and what the user is warned of: samples with their credit, metrics. Trains nothing.

Shapes: P prompts, G samples each, B = P*G samples, T = H*W image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..advantages import zero_spread_groups
from ..config.schema import Config
from ..credit.gcpo import contrast, shown_kind
from ..errors import RunError
from ..interfaces import Prompt, Rollout
from ..prompts.batches import spread_over_tasks
from ..rollout.alternatives import swapped_pictures
from ..rollout.sampling import PROBE, derive_seed
from ..run_folder.alternatives import most_side
from ..run_folder.pace import WINDOW, heldout_falls
from ..run_folder.writer import RunWriter
from .collect import GroupCollector, Scored
from .metrics import Objects, live_localisation, rollout_metrics
from .update import PolicyUpdate

SILENT_STEPS = 10  # steps without any spread in the rewards before the user is warned

Describe = Callable[[Rollout], Objects]


@dataclass
class StepRecorder:
    """Writes what is kept of each step.

    Args:
        config: what to do.
        prompts: what is trained on; some of them are probes, sampled with the same noise at every kept step.
        run: where everything is written.
        accelerator: the trackers.
        sample: prompts, a seed and `alternatives` to a rollout.
        locate: a step, samples and the numbers of a seed to the same with where the reward looked; see `map_together`.
        collect: what rewards a rollout.
        advantage: rewards (B,), group size to advantages (B,).
        update: what assigns credit.
        describe: rollout to the known objects of each sample; None = unknown.
        warn: called with a line that the user should read.

    Attributes:
        watch: notices that a held-out reward falls.
    """

    config: Config
    prompts: Sequence[Prompt]
    run: RunWriter
    accelerator: Accelerator
    sample: Callable[..., Rollout]
    locate: Callable[..., Scored]
    collect: GroupCollector
    advantage: Callable[[Tensor, int], Tensor]
    update: PolicyUpdate
    describe: Describe | None
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self.probes = spread_over_tasks(self.prompts, self.config.log.probes)
        self.watch = HeldoutWatch()
        self.silent = 0

    def rollout(self, sampled: Scored) -> dict[str, float]:
        """The metrics of what was sampled."""
        return rollout_metrics(
            sampled.rollout,
            sampled.rewards,
            sampled.parts,
            normalized=sampled.normalized,
            heldout=self.collect.mixture.heldout,
        )

    def samples(self, step: int, trained: Scored) -> dict[str, float]:
        """Keeps some groups of some steps, and the probes, before the policy is updated.

        Returns where their credit lies, if the step is kept and objects are known."""
        if not self._keeps(step):
            return {}
        seeded = self.config.train.seed
        scored = self.locate(step, self._chosen(step, trained), seeded, step)
        if self.probes:
            seed = derive_seed(PROBE, seeded)
            probes = self.sample(self.probes, seed, alternatives=self.alternatives(step))
            judged = self.collect.judge(step, probes)
            shown = self.collect.scored(probes, *judged, learn=False)
            scored = scored.joined(self.locate(step, shown, seeded))
        kept, sampler = scored.rollout, self.update.sampler
        advantages = self.advantage(scored.target, kept.group_size)
        credit, pushed = self.update.assigned(kept, advantages)
        objects = self.describe(kept) if self.describe else None
        self.run.write_step(
            step,
            kept,
            grid=sampler.grid,
            codebook_size=sampler.codebook_size,
            rewards=scored.rewards,
            reward_parts=scored.parts,
            reward_normalized=scored.normalized,
            advantages=advantages,
            credit=credit,
            token_advantages=pushed,
            contrast=self._contrast(kept),
            objects=objects,
            probes=len(self.probes) * kept.group_size,
            swapped=self._swapped(kept),
        )
        if objects is None:
            return {}
        height, width = kept.images.shape[-2:]
        return live_localisation(credit, objects, sampler.grid, (height, width))

    def metrics(self, step: int, metrics: dict[str, float], trained: Scored) -> None:
        """Writes the metrics of a step, that of the watch added, and warns of what they show."""
        metrics |= self._watch_heldout(step, metrics)
        self.run.append_metrics(step, metrics)
        try:
            self.accelerator.log(dict(metrics), step=step)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{self.run.path}: trackers cannot be written: {reason}") from error
        self._warn_of_silence(step, metrics, trained)

    def alternatives(self, step: int) -> int:
        """How many of the likeliest other codes a step's samples keep."""
        return self.config.log.alternatives if self._keeps(step) else 0

    def _keeps(self, step: int) -> bool:
        """Whether the run folder keeps samples of the step."""
        every, total = self.config.log.samples_every, self.config.train.steps
        return step == 1 or step % every == 0 or step == total

    def _chosen(self, step: int, trained: Scored) -> Scored:
        """Some groups of a step, so that all tasks have their turn."""
        size = trained.rollout.group_size
        groups = len(trained.rollout) // size
        wanted = min(self.config.log.groups, groups)
        turn = step // self.config.log.samples_every * wanted
        places = [(turn + i) % groups * size + k for i in range(wanted) for k in range(size)]
        return trained.select(torch.tensor(places, device=trained.target.device))

    def _swapped(self, kept: Rollout) -> Tensor | None:
        """What the alternatives' patches show, as `swapped_pictures`; None where nothing is to be written of them."""
        if kept.alternatives is None or not self.accelerator.is_main_process:
            return None
        sampler, batch = self.update.sampler, self.config.rollout.batch_size
        most = most_side(sampler.grid, kept.alternatives.shape[-1])
        with self.accelerator.autocast():
            return swapped_pictures(
                sampler, kept.tokens, kept.alternatives, most=most, batch_size=batch
            )

    def _contrast(self, kept: Rollout) -> Tensor | None:
        """(B, T) evidence of the credit's kind, None where the negative branch never ran."""
        if kept.negative_logprobs is None:
            return None
        kind = shown_kind(self.config.credit.params, kept.full_kl)
        return contrast(
            kept.logprobs, kept.negative_logprobs, kept.mask, kind=kind, full_kl=kept.full_kl
        )

    def _watch_heldout(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metric, and a warning when a held-out reward begins to fall while the trained one rises."""
        parts = {name: metrics[f"heldout/{name}"] for name in self.collect.mixture.heldout}
        if not parts:
            return {}
        if line := self.watch(metrics["reward"], parts):
            self.warn(f"step {step}: {line}")
        return {"heldout_falls": float(self.watch.fallen)}

    def _warn_of_silence(self, step: int, metrics: Mapping[str, float], trained: Scored) -> None:
        """Says so when nothing can be learned."""
        flat = zero_spread_groups(trained.target, trained.rollout.group_size)
        self.silent = self.silent + 1 if bool(flat.all()) else 0
        if self.silent and self.silent % SILENT_STEPS == 0:
            level = f"equal within every group (mean {metrics['reward']:.3g})"
            level = "zero" if metrics["reward"] == 0 else level
            self.warn(
                f"step {step}: all rewards of the last {self.silent} steps are {level}; nothing is learned"
            )


class HeldoutWatch:
    """Notices that the trained reward rises while a held-out one falls: the policy may be gaming its reward.

    Over the last WINDOW steps, the mean of the later half minus that of the earlier half must be above SURE standard
    errors of that difference for the trained reward, and below minus as many for the held-out one.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []  # of the window, the oldest first
        self.fallen = False

    def __call__(self, reward: float, heldout: Mapping[str, float]) -> str:
        """Takes one more step in; `fallen` says how things stand, and a line is returned when that begins."""
        latest = {"": reward, **heldout}
        same = [step for step in self.steps if step.keys() == latest.keys()]  # a resumed run's
        self.steps = [*same, latest][-WINDOW:]
        before = self.fallen
        known = {name: [step[name] for step in self.steps] for name in latest}
        falls = heldout_falls(known.pop(""), known)
        told = [f"{name} fell by {change:.3g}" for name, change in falls.items()]
        self.fallen = bool(told)
        if not told or before:
            return ""
        return f"over the last {WINDOW} steps the reward rose while held-out {', '.join(told)}"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "fallen": self.fallen}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
        self.steps, self.fallen = list(state["steps"]), state["fallen"]
