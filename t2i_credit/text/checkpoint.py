"""Checkpoints of a run on text: between two rollouts, complete or absent, without pickle. Decides nothing about training.

000100/model/               the weights, as transformers loads them, and trl's trainer_state.json
000100/state.safetensors    optimizer, scheduler, random numbers of every process
000100/state.json
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerState

from ..errors import ConfigError, RunError, one_line
from ..run_folder.checkpoint import ELSE, Checkpoint, load_checkpoint, prune, save_checkpoint
from ..training.stopping import Stop
from .arguments import answers_per_step, updates_per_step
from .trainer import CreditGRPOTrainer

TRAINER_STATE = "trainer_state.json"  # where transformers looks for it
_ADAPTIVE = ("entropy_coef", "_last_world_entropy")  # trl changes them as it trains


class ResumableTrainer(CreditGRPOTrainer):
    """A trainer whose run, killed and taken up again, goes on as if nothing had happened.

    trl saves and loads through the methods below; its own write pickles, and forget the order of the prompts beyond the
    first epoch and a reference that moves. A frozen reference needs no saving: it is made of the model that training
    begins with, before a checkpoint is loaded.

    Args:
        stop: what signals ask of the run; left out = nothing.

    Attributes:
        samples: answers sampled since the start.

    Raises:
        ConfigError: the weights are in parts on several devices.
    """

    def __init__(self, *args: Any, stop: Stop | None = None, **others: Any) -> None:
        super().__init__(*args, **others)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "FSDP and DeepSpeed are refused: a run's checkpoints hold whole weights; CreditGRPOTrainer in a "
                "script of your own takes both"
            )
        self.saved: Checkpoint | None = None
        self.updates = updates_per_step(self.args)
        self.samples, self.stop = 0, stop or Stop()

    def load(self, step: int, folder: Path) -> None:
        """Reads the checkpoint to go on from; writes nothing.

        Args:
            step: which one; 0 = none, from the beginning.
            folder: where checkpoints are.

        Raises:
            RunError: it is damaged, was written by another number of processes, or does not fit the model.
        """
        if not step:
            return
        saved, now = load_checkpoint(folder, step), self.accelerator.num_processes
        try:
            if (wrote := len(saved.extra["random"])) != now:
                raise RunError(f"{saved.path}: {wrote} processes wrote it; {now} cannot go on")
            self.samples = saved.extra.get("samples", step * answers_per_step(self.args))
            assert saved.model_folder is not None, saved.path  # text models save themselves
            TrainerState.load_from_json(str(saved.model_folder / TRAINER_STATE))
            self._require_same_shapes(saved.model_folder)
        except RunError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(f"{saved.path}: damaged: {one_line(error)}; {ELSE}") from error
        self.saved, self.stop.step = saved, step

    def train_from(self, step: int, *, folder: Path, keep: int) -> None:
        """Trains what is left, or until a signal ends it.

        Args:
            step: of the checkpoint that was loaded; 0 = from the beginning.
            folder: where checkpoints are and go.
            keep: how many of the newest to keep.
        """
        self.checkpoints, self.keep = folder, keep
        self.add_callback(_Progress(self))  # the last, once a step is written
        if step and self.accelerator.is_main_process:
            # one process killed between saving and pruning leaves one checkpoint too many
            prune(folder, keep=keep)
        begin = str(self.saved.model_folder) if self.saved else None
        if step * self.updates >= self.args.max_steps:
            self._load_from_checkpoint(begin)
            return
        with self.stop.saved_by(
            lambda step: self._save_checkpoint(self.model, None), self.accelerator, together=True
        ):
            self.train(resume_from_checkpoint=begin)
        assert self.state.global_step == self.args.max_steps, self.state.global_step

    def _require_same_shapes(self, folder: Path) -> None:
        """Raises ValueError unless the weights in the folder are those of the model, as far as it saves them."""
        known = self.accelerator.unwrap_model(self.model).state_dict()
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118, no mapping
                    shape = tensors.get_slice(name).get_shape()
                    if name not in known or list(known[name].shape) != shape:
                        raise ValueError(f"{name} does not fit the model of this run")

    def write_model(self, folder: Path) -> None:
        """Writes model and tokenizer as transformers loads them."""
        for part in (self.accelerator.unwrap_model(self.model), self.processing_class):
            part.save_pretrained(folder)

    def finish_step(self) -> None:
        """All updates of a rollout are made and logged; what a step given up would change is noted."""
        adaptive = {name: getattr(self, name) for name in _ADAPTIVE}
        self._state = {"random": random_state(), "adaptive": adaptive}
        self.stop.finished(self.state.global_step // self.updates)

    # What transformers calls

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, off = divmod(self.state.global_step, self.updates)
        assert off == 0, (self.state.global_step, self.updates)  # no rollout is half used
        states = gather_object([self._state["random"]])
        if not self.accelerator.is_main_process:
            return

        def write(folder: Path) -> None:
            self.write_model(folder)
            self.state.save_to_json(str(folder / TRAINER_STATE))

        save_checkpoint(
            self.checkpoints,
            step,
            model_state=write,
            optimizer=self.optimizer.state_dict(),
            scheduler_state=self.lr_scheduler.state_dict(),
            extra={
                "random": states,
                "epochs": int(self.state.epoch),
                "adaptive": self._state["adaptive"],
                "samples": self.samples,
                "reference": dict(self._moving_reference().state_dict()),
            },
            keep=self.keep,
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        assert self.saved is not None and self.saved.optimizer and self.saved.scheduler
        self.optimizer.load_state_dict(self.saved.optimizer)
        self.lr_scheduler.load_state_dict(self.saved.scheduler)
        for name, value in self.saved.extra["adaptive"].items():
            setattr(self, name, value)
        self._moving_reference().load_state_dict(self.saved.extra["reference"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        assert self.saved is not None
        restore_random(self.saved.extra["random"][self.accelerator.process_index])

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """trl's, which draws a new order at each epoch from one generator: it draws those of past epochs again."""
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.saved.extra["epochs"] if self.saved else 0):
            next(iter(sampler))
        return sampler

    def _moving_reference(self) -> Any:
        """The reference if it follows the policy, else a module of nothing."""
        if self.ref_model is None or not self.args.sync_ref_model:
            return torch.nn.Module()
        return self.accelerator.unwrap_model(self.ref_model)


class _Progress(TrainerCallback):
    """Tells the trainer when weights are about to change, and when a step is whole."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.stop.updating()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.trainer.updates == 0:
            self.trainer.samples += answers_per_step(args)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:  # else they are totals, at the end
            self.trainer.finish_step()


def random_state() -> dict[str, Any]:
    """Where this process's random numbers stand, as a checkpoint can hold it."""
    numbers: Any = np.random.get_state()
    name, keys, *others = numbers
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *others),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random(state: Mapping[str, Any]) -> None:
    """Goes on from a `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
