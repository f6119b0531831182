"""The training loop: prompts, rollout, rewards, advantages, credit, update, run folder. Builds no part itself.

Shapes: P prompts, G samples each, B = P*G samples, T image tokens. Randomness comes from (seed, step, round) alone, so
a resumed run repeats the undisturbed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..advantages import zero_spread_groups
from ..config.schema import Config
from ..credit.entry import CreditEntry, token_advantages
from ..credit.gcpo import contrast
from ..errors import RunError, TrainingError
from ..interfaces import Prompt, Rollout
from ..prompts.batches import PromptBatches, spread_over_tasks
from ..rollout.sampling import PROBE, derive_seed, sample_rollout
from ..run_folder.checkpoint import load_checkpoint, prune, save_checkpoint
from ..run_folder.writer import RunWriter
from .collect import GroupCollector, Scored
from .gold import ReferenceImage, go_gold
from .metrics import live_localisation, rollout_metrics
from .processes import (
    distribute,
    gather_rollout,
    gather_rows,
    gathered,
    my_share,
    optimizer_parts,
    whole,
)
from .recorder import HeldoutWatch
from .tune import MovingAverage, load_trained
from .update import PolicyUpdate, learning_rate

SILENT_STEPS = 10  # steps without any spread in the rewards before the user is warned

Reward = Callable[[Tensor, Sequence[Prompt]], tuple[Tensor, dict[str, Tensor]]]
Describe = Callable[[Rollout], Sequence[Sequence[Mapping[str, Any]]]]


class Trainer:
    """Trains a model on the rewards of its own samples.

    Args:
        config: what to do.
        model: an ImageTokenModel that is an nn.Module; its parameters with requires_grad are trained.
        reference: the frozen model of the KL term and of credit that needs one, or None.
        reward: images and prompts to the total (B,) and its parts.
        advantage: rewards (B,), group size to advantages (B,).
        credit: the entry of the credit table.
        prompts: what to train on.
        run: where everything is written.
        accelerator: device, precision, trackers.
        reference_image: where golden references come from, if the configuration asks for them.
        describe: rollout to the known objects of each sample, for the run folder; None = unknown.
        report: called after each step with its number (from 1) and metrics.
        warn: called with a line that the user should read.
    """

    def __init__(
        self,
        config: Config,
        *,
        model: Any,
        reference: Any | None,
        reward: Reward,
        advantage: Callable[[Tensor, int], Tensor],
        credit: CreditEntry,
        prompts: Sequence[Prompt],
        run: RunWriter,
        accelerator: Accelerator,
        reference_image: ReferenceImage = lambda prompt, seed: None,
        describe: Describe | None = None,
        report: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.config, self.run, self.accelerator = config, run, accelerator
        self.reward, self.advantage, self.describe = reward, advantage, describe
        self.report, self.warn = report, warn
        settings = config.prompts
        batches = PromptBatches(
            prompts, per_step=settings.per_step, seed=settings.seed, balance=settings.balance
        )
        self.probes = spread_over_tasks(prompts, config.log.probes)
        self.model = distribute(model, reference, accelerator, config.train.sharding)
        optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.optim.lr,
            betas=config.optim.betas,
            eps=config.optim.eps,
            weight_decay=config.optim.weight_decay,
        )
        self.optimizer = accelerator.prepare(optimizer)
        self.sampler = accelerator.unwrap_model(self.model)
        self.update = PolicyUpdate(
            config,
            model=self.model,
            sampler=self.sampler,
            reference=reference,
            credit=credit,
            optimizer=self.optimizer,
            accelerator=accelerator,
        )
        decay = config.tune.ema
        self.average = MovingAverage(self._trained(), decay) if decay is not None else None
        self.collect = GroupCollector(
            config,
            batches,
            sample=self._timed_call("rollout", self._sample),
            judge=self._timed_call("reward", self._judge),
            go_gold=partial(
                go_gold,
                model=self.model,
                sampler=self.sampler,
                reference_image=reference_image,
                cfg_scale=config.rollout.cfg_scale,
                temperature=config.rollout.temperature,
            ),
        )
        self.watch = HeldoutWatch()
        self.seconds: dict[str, float] = {}
        self.silent = 0
        self.start = self._restore() if run.resume_step else 0

    def train(self) -> None:
        """Runs the steps that are left."""
        total = self.config.train.steps
        for step in range(self.start + 1, total + 1):
            self.report(step, self.step(step))
            if step % self.config.train.checkpoint_every == 0 or step == total:
                self._save(step)

    def step(self, step: int) -> dict[str, float]:
        """One step, counted from 1; returns its metrics, which are also written."""
        self.seconds = {}
        with self._timed("step"):
            sampled, trained, counts = self.collect(step)
            advantages = self.advantage(trained.target, trained.rollout.group_size)
            metrics = self._rollout_metrics(sampled) | counts
            if self._keeps(step):
                metrics |= self._write_samples(step, trained)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, step)
            with self._timed("update"):
                metrics |= self.update(step, trained.rollout, advantages)
            if self.average is not None:
                self.average.update(self._trained())
        metrics |= {"lr": learning_rate(self.config, step), "samples": self._samples(step)}
        metrics |= {f"time/{name}": spent for name, spent in self.seconds.items()}
        metrics["time/tokens_per_second"] = sampled.rollout.tokens.numel() / self.seconds["step"]
        metrics |= self._watch_heldout(step, metrics)
        self.run.append_metrics(step, metrics)
        self._track(step, metrics)
        self._warn_of_silence(step, metrics, trained)
        return metrics

    def _sample(self, prompts: Sequence[Prompt], seed: int) -> Rollout:
        settings, needs = self.config.rollout, self.update.needs
        mine = my_share(len(prompts), self.accelerator)
        with gathered(self.sampler), self.accelerator.autocast():
            part = sample_rollout(
                self.sampler,
                prompts[mine],
                group_size=settings.group_size,
                **settings.sampling,
                seed=seed,
                batch_size=settings.batch_size,
                full_kl="full_kl" in needs,
                guided_entropy="guided_entropy" in needs,
                code_spread="code_spread" in needs,
                code_shift="code_shift" in needs,
                negative_branch=bool({"negative_logprobs", "full_kl"} & needs),
                first_sample=mine.start * settings.group_size,
            )
        return gather_rollout(part, prompts, self.accelerator)

    def _judge(self, step: int, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """Total reward (B,) and its parts; what a reward refuses is told with the step."""
        size = rollout.group_size
        prompts = len(rollout) // size
        mine = my_share(prompts, self.accelerator)
        rows = slice(mine.start * size, mine.stop * size)
        try:
            total, parts = self.reward(rollout.images[rows], rollout.prompts[rows])
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}; no update was made") from error
        total = gather_rows(total, prompts, self.accelerator)
        return total, {n: gather_rows(p, prompts, self.accelerator) for n, p in parts.items()}

    def _rollout_metrics(self, sampled: Scored) -> dict[str, float]:
        return rollout_metrics(
            sampled.rollout,
            sampled.rewards,
            sampled.parts,
            normalized=sampled.normalized,
            heldout=self.collect.mixture.heldout,
        )

    def _samples(self, step: int) -> int:
        """Images sampled since the start."""
        prompts = step * self.config.prompts.per_step + self.collect.refills
        return prompts * self.config.rollout.group_size

    def _keeps(self, step: int) -> bool:
        """Whether the run folder keeps samples of the step."""
        every, total = self.config.log.samples_every, self.config.train.steps
        return step == 1 or step % every == 0 or step == total

    def _write_samples(self, step: int, trained: Scored) -> dict[str, float]:
        """Keeps some groups of the step, and the probes: the same prompts and noise at every kept step.

        Returns where their credit lies, if objects are known."""
        size = trained.rollout.group_size
        groups = len(trained.rollout) // size
        wanted = min(self.config.log.groups, groups)
        turn = step // self.config.log.samples_every * wanted  # so that all tasks have their turn
        places = [(turn + i) % groups * size + k for i in range(wanted) for k in range(size)]
        scored = trained.select(torch.tensor(places, device=trained.target.device))
        if self.probes:
            probes = self._sample(self.probes, derive_seed(PROBE, self.config.train.seed))
            scored = scored.joined(self.collect.scored(step, probes, learn=False))
        kept = scored.rollout
        advantages = self.advantage(scored.target, size)
        credit = self.update.credit_of(kept, advantages)
        raw = None
        if kept.negative_logprobs is not None:
            chosen = self.config.credit
            measured = chosen.name == "guidance_contrast"
            kind: Any = chosen.params.get("kind", "k3") if measured else "k3"
            raw = contrast(
                kept.logprobs,
                kept.negative_logprobs,
                kept.mask,
                kind=kind,
                full_kl=kept.full_kl,
            )
        objects = self.describe(kept) if self.describe else None
        self.run.write_step(
            step,
            kept,
            grid=self.sampler.grid,
            codebook_size=self.sampler.codebook_size,
            rewards=scored.rewards,
            reward_parts=scored.parts,
            reward_normalized=scored.normalized,
            advantages=advantages,
            credit=credit,
            token_advantages=token_advantages(advantages, credit),
            contrast=raw,
            objects=objects,
            probes=len(self.probes) * size,
        )
        if objects is None:
            return {}
        height, width = kept.images.shape[-2:]
        return live_localisation(credit, objects, self.sampler.grid, (height, width))

    def _track(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self.accelerator.log(dict(metrics), step=step)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{self.run.path}: trackers cannot be written: {reason}") from error

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

    # Checkpoints

    def _trained(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.sampler.named_parameters() if p.requires_grad}

    def _save(self, step: int) -> None:
        main = self.accelerator.is_main_process
        trained = whole(self._trained(), keep=main)
        optimizer = whole(self.optimizer.state_dict(), keep=main)
        averaged = whole({"ema": self.average.state} if self.average else {}, keep=main)
        if not main:
            return
        save_checkpoint(
            self.run.checkpoints,
            step,
            model_state=trained,
            optimizer=optimizer,
            extra={"collect": self.collect.state(), "watch": self.watch.state(), **averaged},
            keep=self.config.train.keep_checkpoints,
        )

    def _restore(self) -> int:
        saved = load_checkpoint(self.run.checkpoints, self.run.resume_step)
        assert saved.model_state is not None
        if absent := sorted(set(self._trained()) - set(saved.model_state)):
            raise RunError(f"{saved.path}: {absent[0]} is not in this checkpoint; same config?")
        load_trained(self.sampler, saved.model_state, str(saved.path))
        if self.average is not None:  # one that was switched on since then begins with the weights
            self.average.load(saved.extra.get("ema", saved.model_state))
        settings = [
            {k: v for k, v in group.items() if k != "params"}
            for group in self.optimizer.param_groups
        ]
        assert saved.optimizer is not None
        self.optimizer.load_state_dict(optimizer_parts(saved.optimizer, self.optimizer))
        for group, chosen in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(chosen)  # as the configuration says now, which may have been edited
        if "collect" not in saved.extra:
            raise RunError(f"{saved.path}: of an older t2i-credit; resume with that, or train anew")
        self.collect.load(saved.extra["collect"])
        self.watch.load(saved.extra["watch"])
        self.accelerator.wait_for_everyone()
        # one process killed between saving and pruning leaves one checkpoint too many
        if self.accelerator.is_main_process:
            prune(self.run.checkpoints, keep=self.config.train.keep_checkpoints)
        return saved.step

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def _timed_call(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, which adds its time to that of the step's other calls under this name."""

        def timed(*args: Any) -> Any:
            with self._timed(name):
                return work(*args)

        return timed
