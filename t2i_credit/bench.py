"""Speed and memory, each variant beside its rival in the same run, as medians with 95% intervals. Judges nothing.

Four questions: what keeping log-probs adds to sampling, what GCPO's credit adds to a training step, how many image
tokens a second are sampled and trained on, and what chunked log-probs save. Variants take turns on the same seeds, so
that whatever else the machine does meets both. B samples, T image tokens.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from .bench_memory import MemorySize, can_measure, peak
from .bench_statistics import Row, alone, compared, interleaved
from .config import Config
from .config_plugins import CreditConfig
from .credit import CREDIT
from .errors import UserError
from .interfaces import Prompt
from .prompts import PromptBatches
from .rollout import _sample, derive_seed, sampling_noise
from .trainer import Trainer

BENCH = 4  # purpose of a derived seed
GRPO, GCPO = "uniform", "guidance_contrast"
# The trainer keeps samples at step 1 and at the last one: steps between these write nothing.
FIRST_STEP, LAST_STEP = 2, 10**9


def run(
    config: Config,
    *,
    model: Any,
    reward: Callable[..., Any],
    advantage: Callable[..., Any],
    prompts: Sequence[Prompt],
    repeats: int = 15,
    memory: MemorySize | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Measures everything, with one CPU thread. The model is left as it was.

    Args:
        config: sizes and settings of a training step; its credit is replaced by GCPO's and GRPO's.
        model: an ImageTokenModel that is an nn.Module.
        reward, advantage, prompts: as the trainer takes them.
        repeats: of every variant.
        memory: sizes of the memory measurement; None = the default ones.
        progress: called with (repeats done, of).

    Returns:
        {"settings": what was measured, and on what; "rows": what, unit, ours, rival, ratio, interval, repeats},
        all fit for JSON. Without a rival, rival and ratio are None and the interval is that of ours.

    Raises:
        UserError: the configuration has no guidance, or wants a reference model.
    """
    if config.rollout.cfg_scale <= 1:
        raise UserError(f"rollout.cfg_scale: {config.rollout.cfg_scale}; the bench needs above 1")
    if config.loss.kl_coef > 0:
        raise UserError(f"loss.kl_coef: {config.loss.kl_coef}; the bench needs 0")
    parts = 3 if can_measure() else 2
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        progress(finished, parts * repeats)

    progress(0, parts * repeats)
    with _one_thread():
        # first, because it alone can fail: where memory runs out
        saved = [_memory(memory or MemorySize(), repeats, done)] if can_measure() else []
        rows = [_sampling(config, model, prompts, repeats, done)]
        rows += _training(config, model, reward, advantage, prompts, repeats, done)
    return {"settings": _settings(config, model), "rows": rows + saved}


@torch.no_grad()
def _sampling(
    config: Config,
    model: Any,
    prompts: Sequence[Prompt],
    repeats: int,
    done: Callable[[], None],
) -> Row:
    """Decoding alone: no encoding of prompts, no noise, no pictures, which would only dilute the difference."""
    settings, tokens = config.rollout, model.grid[0] * model.grid[1]
    batches = PromptBatches(prompts, per_step=config.prompts.per_step, seed=config.prompts.seed)
    samples = config.prompts.per_step * settings.group_size

    def sampled(repeat: int, keep: bool) -> float:
        chosen = batches.batch(repeat)
        condition = model.condition([p.text for p in chosen], [p.negative for p in chosen])
        noise = sampling_noise(derive_seed(BENCH, repeat), 0, samples, tokens).to(model.device)
        return _seconds(
            model.device,
            lambda: _sample(
                model,
                condition,
                settings.group_size,
                noise,
                cfg_scale=settings.cfg_scale,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                full_kl=False,
                guided_entropy=False,
                keep=keep,
            ),
        )

    for keep in (True, False):
        sampled(0, keep)
    ours, rival = interleaved(
        lambda i: sampled(i, True), lambda i: sampled(i, False), repeats, done
    )
    what = (
        f"sampling {samples} images at cfg {settings.cfg_scale:g}: both prompts' log-probs and entropy "
        "kept, against tokens alone"
    )
    return compared(what, "s", ours, rival)


def _training(
    config: Config,
    model: Any,
    reward: Callable[..., Any],
    advantage: Callable[..., Any],
    prompts: Sequence[Prompt],
    repeats: int,
    done: Callable[[], None],
) -> list[Row]:
    """Whole steps of the trainer, and the rates of their parts."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier one may be for a GPU
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    trainers = {
        name: _TimedTrainer(
            _step_config(config, name),
            model=model,
            reference=None,
            reward=reward,
            advantage=advantage,
            credit=CREDIT[name],
            prompts=prompts,
            run=_Unwritten(),  # type: ignore[arg-type]
            accelerator=accelerator,
            warn=lambda line: None,
        )
        for name in (GCPO, GRPO)
    }
    parts: dict[str, list[float]] = {"rollout": [], "update": []}

    def step(name: str, repeat: int) -> float:
        trainer = trainers[name]
        spent = _seconds(model.device, lambda: trainer.step(FIRST_STEP + repeat))
        if name == GCPO:
            for part, values in parts.items():
                values.append(trainer.seconds[part])
        return spent

    for name in trainers:
        step(name, 0)
    for values in parts.values():
        values.clear()
    ours, rival = interleaved(lambda i: step(GCPO, i), lambda i: step(GRPO, i), repeats, done)
    model.zero_grad(set_to_none=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = samples * model.grid[0] * model.grid[1]
    rates = {part: [tokens / spent for spent in values] for part, values in parts.items()}
    return [
        compared(
            f"training step on {samples} images: GCPO ({GCPO}) against GRPO ({GRPO})",
            "s",
            ours,
            rival,
        ),
        alone(
            "rollout of that GCPO step: image tokens sampled and decoded",
            "tokens/s",
            rates["rollout"],
        ),
        alone("update of that GCPO step: image tokens trained on", "tokens/s", rates["update"]),
    ]


def _step_config(config: Config, credit: str) -> Config:
    """The configuration with another credit, a learning rate of 0, which costs the same and leaves the model as it
    is, so that both variants see the same images, and without kept samples."""
    return config.model_copy(
        update={
            "credit": CreditConfig(name=credit),
            "optim": config.optim.model_copy(update={"lr": 0.0}),
            "train": config.train.model_copy(update={"steps": LAST_STEP}),
            "log": config.log.model_copy(update={"samples_every": LAST_STEP, "probes": 0}),
        }
    )


class _TimedTrainer(Trainer):
    """A trainer whose times are those of the device, which may lag behind Python."""

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        with super()._timed(name):
            yield
            _synchronize(self.sampler.device)


class _Unwritten:
    """Stands where a trainer expects its run folder."""

    resume_step = None

    def append_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes nothing."""


def _memory(size: MemorySize, repeats: int, done: Callable[[], None]) -> Row:
    """Peak memory of log-probs, forward and backward, a process for each measurement."""
    mebibytes = 2.0**20
    ours, rival = interleaved(
        lambda i: peak("chunked", size, i)["peak"] / mebibytes,
        lambda i: peak("held", size, i)["peak"] / mebibytes,
        repeats,
        done,
    )
    what = (
        f"peak memory of {size.tokens} tokens' log-probs over {size.codes} codes and of their gradients: "
        f"in chunks of {size.chunk} tokens as in the update, against all held"
    )
    return compared(what, "MiB", ours, rival)


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Wall-clock seconds of `work`, until the device is done with it."""
    gc.collect()  # so that none of it falls into the measurement
    _synchronize(device)
    began = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One CPU thread, as other work on the machine disturbs several most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _settings(config: Config, model: Any) -> dict[str, Any]:
    device = model.device
    return {
        "model": config.model.name,
        "prompts": config.prompts.per_step,
        "group_size": config.rollout.group_size,
        "grid": list(model.grid),
        "codebook_size": model.codebook_size,
        "cfg_scale": config.rollout.cfg_scale,
        "policy": config.loss.policy,
        "threads": 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": platform.processor() or platform.machine(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
