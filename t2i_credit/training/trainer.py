"""The training loop: prompts, rollout, rewards, advantages, credit, update, run folder. Builds no part itself.

Shapes: P prompts, G samples each, B = P*G samples, T image tokens. Randomness comes from (seed, step, round) alone, so
a resumed run repeats the undisturbed one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..config.schema import Config
from ..credit.entry import CreditEntry
from ..errors import RunError, one_line
from ..interfaces import Prompt
from ..prompts.batches import PromptBatches
from ..prompts.records import record_key
from ..run_folder.checkpoint import load_checkpoint, prune, save_checkpoint
from ..run_folder.writer import RunWriter
from .collect import (
    GroupCollector,
    MapReward,
    Reward,
    Scored,
    StepGroups,
    judge_together,
    map_together,
    sample_together,
)
from .critic.critic import Critic
from .critic.file import CriticFile
from .gold import ReferenceImage, go_gold
from .metrics import StepClock
from .processes import distribute, optimizer_parts, whole
from .recorder import Describe, StepRecorder
from .stopping import Stop
from .tune import MovingAverage, fingerprint, load_trained
from .update import PolicyUpdate, learning_rate

# what a run goes on with, and the keys that say it
SUBJECT = {
    "model": ("the weights of another model", "model.name"),
    "prompts": ("another set of prompts", "prompts.source, column, split, tasks"),
}


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
        run: where everything is written, once it has begun.
        accelerator: device, precision, trackers.
        critic_file: what a critic begins with, if the credit has one; None = it begins with nothing.
        reference_image: where golden references come from, if the configuration asks for them.
        describe: rollout to the known objects of each sample, for the run folder; None = unknown.
        maps: where the reward looked, as `map_together` takes it; None = nobody asked.
        report: called after each step with its number (from 1) and metrics.
        warn: called with a line that the user should read.
        clock: takes the time of a step's parts; left out = Python's, which a device may lag behind.
        stop: what signals ask of the run; left out = nothing.

    Raises:
        RunError: the checkpoint that the run goes on from does not fit; nothing is written then.
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
        critic_file: CriticFile | None = None,
        reference_image: ReferenceImage = lambda prompt, seed: None,
        describe: Describe | None = None,
        maps: MapReward | None = None,
        report: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
        warn: Callable[[str], None] = print,
        clock: StepClock | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.config, self.run, self.accelerator = config, run, accelerator
        self.advantage, self.report = advantage, report
        self.clock, self.stop = clock or StepClock(), stop or Stop()
        self.subject = {"model": fingerprint(model), "prompts": _digest(prompts)}
        self.model = distribute(model, reference, accelerator, config.train.sharding)
        optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.optim.lr,
            betas=config.optim.betas,
            eps=config.optim.eps,
            weight_decay=config.optim.weight_decay,
        )
        optimizer.register_step_pre_hook(self.stop.updating)
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
        self.sample = partial(
            sample_together,
            config=config,
            sampler=self.sampler,
            needs=self.update.needs,
            accelerator=accelerator,
        )
        self.judge = partial(
            judge_together, reward=reward, accelerator=accelerator, clock=self.clock
        )
        self.critic: Critic | None = None
        if config.credit.has_critic:
            self.critic = Critic(
                config, self.sampler, accelerator=accelerator, advantage=advantage, warn=warn
            )
        self.map = partial(
            map_together,
            maps=maps,
            sampler=self.sampler,
            accelerator=accelerator,
            clock=self.clock,
        )
        order = config.prompts
        self.collect = GroupCollector(
            config,
            PromptBatches(prompts, per_step=order.per_step, seed=order.seed, balance=order.balance),
            judge=self.judge,
            go_gold=partial(go_gold, policy=self.update.policy, reference_image=reference_image),
            critic=self.critic,
        )
        self.record = StepRecorder(
            config,
            prompts,
            run=run,
            accelerator=accelerator,
            sample=self.sample,
            locate=self.map,
            collect=self.collect,
            advantage=advantage,
            update=self.update,
            describe=describe,
            warn=warn,
        )
        if self.critic and critic_file and not run.resume_step:
            self.critic.load(critic_file.state, f"critic.file: {critic_file.path}")
        self.samples = 0  # images sampled since the start
        self.start = self.stop.step = self._restore() if run.resume_step else 0
        self.state = self._state()

    def train(self) -> None:
        """Runs the steps that are left, or until a signal ends them."""
        settings, together = self.config.train, self.config.train.sharding == "full"
        self.prune()
        with self.stop.saved_by(self._save, self.accelerator, together=together):
            for step in range(self.start + 1, settings.steps + 1):
                self.report(step, self.step(step))
                self.stop.finished(step)
                if step % settings.checkpoint_every == 0 or step == settings.steps:
                    self._save(step)

    def prune(self) -> None:
        """Deletes older checkpoints than are kept: one killed between saving and pruning left one too many."""
        if self.start and self.accelerator.is_main_process:
            prune(self.run.checkpoints, keep=self.config.train.keep_checkpoints)

    def step(self, step: int) -> dict[str, float]:
        """One step, counted from 1; returns its metrics, which are also written."""
        self.clock.restart()
        with self.clock("step"):
            groups = StepGroups(self.collect, step)
            for prompts, seed in groups.rounds():
                with self.clock("rollout"):
                    kept = self.record.alternatives(step)
                    rollout = self.sample(prompts, seed, alternatives=kept)
                rewards, parts = self.judge(step, rollout)
                groups.add(rollout, rewards, parts)
            sampled, trained = groups.sampled, groups.trained
            if "reward_map" in self.update.needs:
                trained = self.map(step, trained, self.config.train.seed, step)
            advantages = self.advantage(trained.target, trained.rollout.group_size)
            with self.clock("update"):
                credit = self.update.credit(trained.rollout, advantages)
            located = self.record.samples(step, trained)  # while the policy is the one that sampled
            rate = self._set_learning_rate(step)
            with self.clock("update"):  # loss, backward pass, optimizer
                updated = self.update(step, trained.rollout, advantages, credit)
            if self.average is not None:
                self.average.update(self._trained())
            learned = {}
            if self.critic is not None:
                with self.clock("critic"):
                    learned = self.critic.learn(step, sampled.rollout, sampled.target)
        self.samples += len(sampled.rollout)
        metrics = self.record.rollout(sampled) | groups.counts | located | updated | learned | rate
        metrics |= self._counted(sampled)
        self.record.metrics(step, metrics, trained)
        self.state = self._state()
        return metrics

    def _set_learning_rate(self, step: int) -> dict[str, float]:
        rate = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return {"lr": rate}

    def _counted(self, sampled: Scored) -> dict[str, float]:
        """Images sampled since the start, and what the step took."""
        seconds = self.clock.seconds
        return {
            "samples": self.samples,
            **{f"time/{name}": spent for name, spent in seconds.items()},
            "time/tokens_per_second": sampled.rollout.tokens.numel() / seconds["step"],
        }

    # Checkpoints

    def _trained(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.sampler.named_parameters() if p.requires_grad}

    def _state(self) -> dict[str, Any]:
        """What of the last finished step is neither weights nor optimizer; a step given up changes it no more."""
        return {
            "samples": self.samples,
            "collect": self.collect.state(),
            "watch": self.record.watch.state(),
            "silent": self.record.silent,
            "subject": self.subject,
            **({"critic": self.critic.state()} if self.critic else {}),
        }

    def _save(self, step: int) -> None:
        main = self.accelerator.is_main_process
        trained = whole(self._trained(), keep=main)
        optimizer = whole(self.optimizer.state_dict(), keep=main)
        averaged = whole({"ema": self.average.state} if self.average else {}, keep=main)
        critic = {"critic_weights": self.critic.weights()} if self.critic else {}
        if not main:
            return
        save_checkpoint(
            self.run.checkpoints,
            step,
            model_state=trained,
            optimizer=optimizer,
            extra={**self.state, **averaged, **critic},
            keep=self.config.train.keep_checkpoints,
        )

    def _restore(self) -> int:
        saved = load_checkpoint(self.run.checkpoints, self.run.resume_step)
        here, there = self._trained(), saved.model_state or {}
        if absent := sorted(here.keys() - there.keys()):
            raise RunError(f"{saved.path}: {absent[0]} is not in this checkpoint; same config?")
        load_trained(self.sampler, there, str(saved.path))
        for name, tensor in there.items():
            if name not in here:
                raise RunError(f"{saved.path}: {name} was trained and is not now; same config?")
            if tensor.dtype != (now := here[name].dtype):
                was = f"{name} was {tensor.dtype} and is {now} now"
                raise RunError(f"{saved.path}: {was}; same model.dtype?")
        extra = saved.extra
        for part, ours in self.subject.items():  # checkpoints that did not say it yet are believed
            known = extra.get("subject")
            if isinstance(known, dict) and known.get(part, ours) != ours:
                began, keys = SUBJECT[part]
                raise RunError(f"{saved.path}: this run began with {began}; same {keys}?")
        try:
            if self.average is not None:
                # one that was switched on since then begins with the weights
                self.average.load(extra.get("ema", there))
            self._restore_optimizer(saved.optimizer or {})
            if self.critic is not None:
                self.critic.load(extra["critic"] | extra["critic_weights"], str(saved.path))
            self.collect.load(extra["collect"], saved.step)
            if "watch" in extra:
                self.record.watch.load(extra["watch"])
            self.record.silent = extra.get("silent", 0)
            # checkpoints that did not count yet: as many as today's configuration takes
            size = self.config.rollout.group_size
            self.samples = extra.get("samples", self.collect.asked(saved.step) * size)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise RunError(f"{saved.path}: does not fit this run: {one_line(error)}") from error
        return saved.step

    def _restore_optimizer(self, state: Mapping[str, Any]) -> None:
        """Moments of the checkpoint, settings as the configuration says now, which may have been edited."""
        settings = [
            {k: v for k, v in group.items() if k != "params"}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(optimizer_parts(state, self.optimizer))
        for group, chosen in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(chosen)


def _digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the prompts' texts and records in their order; how they are drawn and their negatives may change."""
    keys = [record_key(prompt.spec or {}, prompt.text) for prompt in prompts]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
