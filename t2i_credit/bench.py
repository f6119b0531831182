"""Speed and memory, each variant beside its rival in the same run, as medians with 95% intervals. Judges nothing.

What keeping log-probs adds to sampling, and how fast transformers samples the same Janus; what chunked log-probs save;
what GCPO's credit adds to a training step, and how many forward passes it takes; how many images a reward judges. Variants
take turns on the same seeds, so that whatever else the machine does meets both. B samples, T image tokens.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from .bench_janus import against_transformers, is_janus
from .bench_limit import reading_time
from .bench_memory import MemorySize, can_measure
from .bench_rewards import reward_rows
from .bench_statistics import BENCH, Row, alone, compared, interleaved
from .bench_update import memory_rows, pass_row
from .captured import eager_reason
from .config import Config
from .config_plugins import CreditConfig
from .credit import CREDIT
from .errors import UserError
from .interfaces import Prompt
from .passes import PassCounter, mixed_precision, passes_needed
from .prompts import PromptBatches
from .rollout import decode_batch, derive_seed, sampling_noise
from .stopwatch import cpu_threads, seconds, synchronize
from .trainer import Trainer

PARTS = ("rollout", "update", "step", "rewards")
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
    reference: Any | None = None,
    rewards: Mapping[str, Callable[..., Any]] | None = None,
    parts: Sequence[str] = PARTS,
    repeats: int = 15,
    memory: MemorySize | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Measures the parts of a training step, with one CPU thread. The model is left as it was.

    Args:
        config: sizes and settings of a training step; its credit is replaced by GCPO's and GRPO's, which is refreshed
            if it was.
        model: an ImageTokenModel that is an nn.Module.
        reward, advantage, prompts, reference: as the trainer takes them.
        rewards: {name: reward} to be measured each alone.
        parts: names out of PARTS.
        repeats: of every variant.
        memory: sizes of the memory measurement; None = the default ones.
        progress: called with (repeats done, of).

    Returns:
        {"settings": what was measured, and on what; "rows": what, unit, ours, rival, ratio, interval, repeats; "passes":
        forward passes per trained image token, counted and expected}, all fit for JSON. Without a rival, rival and ratio
        are None and the interval is that of ours.

    Raises:
        UserError: an unknown part, or the configuration has no guidance.
    """
    check(config, parts)
    janus, captured = is_janus(model), eager_reason(model) is None
    turns = ("rollout" in parts) * (1 + janus + captured) + ("step" in parts)
    turns += ("update" in parts) * (1 + can_measure())
    turns += ("rewards" in parts) * len(rewards or {})
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        progress(finished, turns * repeats)

    progress(0, turns * repeats)
    rows: list[Row] = []
    passes: dict[str, float] = {}
    with cpu_threads(1):
        if "update" in parts and can_measure():  # first, because it can fail: where memory runs out
            rows += memory_rows(memory or MemorySize(), repeats, done)
        if "update" in parts:
            with mixed_precision(config, model.device):
                rows.append(pass_row(config, model, prompts, repeats, done))
        if "rollout" in parts:
            with mixed_precision(config, model.device):
                rows += _sampling(config, model, prompts, repeats, done)
        if "rollout" in parts and janus:
            rows.append(against_transformers(config, model, prompts[0], repeats, done))
        if "step" in parts:
            steps, passes = _training(
                config, model, reference, reward, advantage, prompts, repeats, done
            )
            rows += steps
        if "rewards" in parts:
            rows += reward_rows(model, rewards or {}, prompts, repeats, done)
    return {"settings": _settings(config, model), "rows": rows, "passes": passes}


def check(config: Config, parts: Sequence[str]) -> None:
    """Raises UserError where nothing could be measured; see `run`."""
    for part in parts:
        if part not in PARTS:
            raise UserError(f"bench: {part!r} is no part; known: {', '.join(PARTS)}")
    if config.rollout.cfg_scale <= 1:
        raise UserError(f"rollout.cfg_scale: {config.rollout.cfg_scale}; the bench needs above 1")


@torch.no_grad()
def _sampling(
    config: Config,
    model: Any,
    prompts: Sequence[Prompt],
    repeats: int,
    done: Callable[[], None],
) -> list[Row]:
    """Decoding alone: no encoding of prompts, no noise, no pictures, which would only dilute the difference."""
    settings, tokens = config.rollout, model.grid[0] * model.grid[1]
    batches = PromptBatches(prompts, per_step=config.prompts.per_step, seed=config.prompts.seed)
    samples = config.prompts.per_step * settings.group_size

    def sampled(repeat: int, *, keep: bool = True, capture: bool = True) -> float:
        chosen = batches.batch(repeat)
        condition = model.condition([p.text for p in chosen], [p.negative for p in chosen])
        noise = sampling_noise(derive_seed(BENCH, repeat), 0, samples, tokens).to(model.device)
        return seconds(
            model.device,
            lambda: decode_batch(
                model,
                condition,
                settings.group_size,
                noise,
                **settings.sampling,
                keep=keep,
                capture=capture,
            ),
        )

    for keep in (True, False):
        sampled(0, keep=keep)
    ours, rival = interleaved(sampled, lambda i: sampled(i, keep=False), repeats, done)
    what = (
        f"sampling {samples} images at cfg {settings.cfg_scale:g}: both prompts' log-probs and entropy "
        "kept, against tokens alone"
    )
    rows = [compared(what, "s", ours, rival)]
    if eager_reason(model) is None:
        sampled(0, capture=False)
        recorded, rival = interleaved(sampled, lambda i: sampled(i, capture=False), repeats, done)
        what = "the same: steps recorded once and replayed as CUDA graphs, against steps one by one"
        rows.append(compared(what, "s", recorded, rival))
    if model.device.type == "cuda":
        limit = reading_time(model, 2 * samples)
        what = (
            f"the same, against reading weights and cache at {limit.bandwidth / 1e9:,.0f} GB/s, the "
            "copy bandwidth of this device"
        )
        rows.append(compared(what, "s", ours, [limit.seconds] * len(ours)))
    return rows


def _training(
    config: Config,
    model: Any,
    reference: Any | None,
    reward: Callable[..., Any],
    advantage: Callable[..., Any],
    prompts: Sequence[Prompt],
    repeats: int,
    done: Callable[[], None],
) -> tuple[list[Row], dict[str, float]]:
    """Whole steps of the trainer, the rates of their parts, and the forward passes of one step."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier one may be for a GPU
    accelerator = Accelerator(
        cpu=model.device.type == "cpu", mixed_precision=config.train.precision
    )
    trainers = {
        name: _TimedTrainer(
            _step_config(config, name),
            model=model,
            reference=reference,
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
        spent = seconds(model.device, lambda: trainer.step(FIRST_STEP + repeat))
        if name == GCPO:
            for part, values in parts.items():
                values.append(trainer.seconds[part])
        return spent

    counter = PassCounter(model)
    held = [reference] if isinstance(reference, nn.Module) else []  # else it is the model itself
    with counter.counting(model, *held):
        step(GCPO, 0)
    step(GRPO, 0)
    for values in parts.values():
        values.clear()
    ours, rival = interleaved(lambda i: step(GCPO, i), lambda i: step(GRPO, i), repeats, done)
    model.zero_grad(set_to_none=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = samples * model.grid[0] * model.grid[1]
    needed = passes_needed(trainers[GCPO].config, CREDIT[GCPO])
    passes = {"counted": counter.per_token(samples), "expected": float(needed.total)}
    rates = {part: [tokens / spent for spent in values] for part, values in parts.items()}
    rows = [
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
    return rows, passes


def _step_config(config: Config, credit: str) -> Config:
    """The configuration with another credit, a learning rate of 0, which costs the same and leaves the model as it
    is, so that both variants see the same images, and without kept samples. Uniform credit has nothing to refresh, and
    no KL weights."""
    even = credit == GRPO
    return config.model_copy(
        update={
            "credit": CreditConfig(name=credit, refresh=config.credit.refresh and not even),
            "loss": config.loss.model_copy(update={"kl_weight": "none"}) if even else config.loss,
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
            synchronize(self.sampler.device)


class _Unwritten:
    """Stands where a trainer expects its run folder."""

    resume_step = None

    def append_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes nothing."""


def _settings(config: Config, model: Any) -> dict[str, Any]:
    device = model.device
    decoding = {"decoding": eager_reason(model) or "captured"} if device.type == "cuda" else {}
    return decoding | {
        "model": config.model.name,
        "prompts": config.prompts.per_step,
        "group_size": config.rollout.group_size,
        "grid": list(model.grid),
        "codebook_size": model.codebook_size,
        "cfg_scale": config.rollout.cfg_scale,
        "policy": config.loss.policy,
        "dtype": str(next(model.language_model.parameters()).dtype).removeprefix("torch."),
        "precision": config.train.precision,
        "threads": 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": platform.processor() or platform.machine(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
