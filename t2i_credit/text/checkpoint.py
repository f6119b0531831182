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

from ..errors import ConfigError, RunError
from ..run_folder.checkpoint import Checkpoint, load_checkpoint, prune, save_checkpoint
from .arguments import updates_per_step
from .trainer import CreditGRPOTrainer

TRAINER_STATE = "trainer_state.json"  # where transformers looks for it
_ADAPTIVE = ("entropy_coef", "_last_world_entropy")  # trl changes them as it trains


class ResumableTrainer(CreditGRPOTrainer):
    """A trainer whose run, killed and taken up again, goes on as if nothing had happened.

    trl saves and loads through the methods below; its own write pickles, and forget the order of the prompts beyond the
    first epoch and a reference that moves. A frozen reference needs no saving: it is made of the model that training
    begins with, before a checkpoint is loaded.

    Raises:
        ConfigError: the weights are in parts on several devices.
    """

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "FSDP and DeepSpeed are refused: a run's checkpoints hold whole weights; CreditGRPOTrainer in a "
                "script of your own takes both"
            )
        self.saved: Checkpoint | None = None
        self.updates = updates_per_step(self.args)

    def train_from(self, step: int, *, folder: Path, keep: int) -> None:
        """Trains what is left.

        Args:
            step: the checkpoint to go on from; 0 = from the beginning.
            folder: where checkpoints are and go.
            keep: how many of the newest to keep.

        Raises:
            RunError: the checkpoint is damaged, or was written by another number of processes.
        """
        self.checkpoints, self.keep = folder, keep
        if step:
            self.saved = self._checkpoint(step)
        begin = str(self.saved.model_folder) if self.saved else None
        if step * self.updates < self.args.max_steps:
            self.train(resume_from_checkpoint=begin)
            assert self.state.global_step == self.args.max_steps, self.state.global_step
        else:
            self._load_from_checkpoint(begin)

    def _checkpoint(self, step: int) -> Checkpoint:
        saved = load_checkpoint(self.checkpoints, step)
        wrote, now = len(saved.extra["random"]), self.accelerator.num_processes
        if wrote != now:
            raise RunError(f"{saved.path}: {wrote} processes wrote it; {now} cannot go on")
        self.accelerator.wait_for_everyone()
        # one process killed between saving and pruning leaves one checkpoint too many
        if self.accelerator.is_main_process:
            prune(self.checkpoints, keep=self.keep)
        return saved

    def write_model(self, folder: Path) -> None:
        """Writes model and tokenizer as transformers loads them."""
        for part in (self.accelerator.unwrap_model(self.model), self.processing_class):
            part.save_pretrained(folder)

    # What transformers calls

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, off = divmod(self.state.global_step, self.updates)
        assert off == 0, (self.state.global_step, self.updates)  # no rollout is half used
        states = gather_object([random_state()])
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
                "adaptive": {name: getattr(self, name) for name in _ADAPTIVE},
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
