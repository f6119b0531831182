"""Speed and memory, each variant beside its rival in the same run, as medians with 95% intervals. Judges nothing.

What keeping log-probs adds to sampling, and how fast transformers samples the same Janus; what chunked log-probs save;
what GCPO's credit adds to a training step, and how many forward passes it takes; how many images a reward judges, and what its maps take. Variants
take turns on the same seeds, so that whatever else the machine does meets both. B samples, T image tokens.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...api.models import load_model
from ...api.parts import Parts, build_reward, prepare
from ...config.schema import Config
from ...errors import UserError
from ...rollout.captured import eager_reason
from ...training.policy import mixed_precision
from .janus import against_transformers, bench_config, is_janus, random_janus
from .maps import map_rows
from .maps import turns as map_turns
from .memory import MemorySize, can_measure
from .rewards import reward_rows
from .rollout import sampling_rows
from .step import step_rows
from .timing import Row, cpu_threads
from .update import memory_rows, pass_row

REWARDS = ("geneval", "clip", "aesthetic")  # those that need no download
PARTS = ("rollout", "update", "step", "rewards", "maps")


def run(
    made: Parts,
    rewards: Mapping[str, Callable[..., Any]] | None = None,
    *,
    parts: Sequence[str] = PARTS,
    repeats: int = 15,
    memory: MemorySize | None = None,
    random_init: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Measures the parts of a training step, with one CPU thread. The model is left as it was.

    Args:
        made: what a training step is made of; its credit is replaced by GCPO's and GRPO's, which is refreshed if it
            was.
        rewards: {name: reward} to be measured each alone.
        parts: names out of PARTS.
        repeats: of every variant.
        memory: sizes of the memory measurement; None = the default ones.
        random_init: whether the model has random weights.
        progress: called with (repeats done, of).

    Returns:
        {"settings": what was measured, and on what; "rows": what, unit, ours, rival, ratio, interval, repeats; "passes":
        forward passes per trained image token, counted and expected}, all fit for JSON. Without a rival, rival and ratio
        are None and the interval is that of ours.

    Raises:
        UserError: an unknown part, or the configuration has no guidance.
    """
    config, model = made.config, made.model
    check(config, parts)
    janus, captured = is_janus(model), eager_reason(model) is None
    turns = ("rollout" in parts) * (1 + janus + captured) + ("step" in parts)
    turns += ("update" in parts) * (1 + can_measure())
    turns += ("rewards" in parts) * len(rewards or {})
    turns += ("maps" in parts) * map_turns()
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
                rows.append(pass_row(made, repeats, done))
        if "rollout" in parts:
            with mixed_precision(config, model.device):
                rows += sampling_rows(made, repeats, done)
        if "rollout" in parts and janus:
            rows.append(against_transformers(made, repeats, done))
        if "step" in parts:
            steps, passes = step_rows(made, repeats, done)
            rows += steps
        if "rewards" in parts:
            rows += reward_rows(made, rewards or {}, repeats, done)
        if "maps" in parts:
            rows += map_rows(made, repeats, done, random_init=random_init)
    return {"settings": _settings(config, model), "rows": rows, "passes": passes}


def check(config: Config, parts: Sequence[str]) -> None:
    """Raises UserError where nothing could be measured; see `run`."""
    for part in parts:
        if part not in PARTS:
            raise UserError(f"bench: {part!r} is no part; known: {', '.join(PARTS)}")
    if config.rollout.cfg_scale <= 1:
        raise UserError(f"rollout.cfg_scale: {config.rollout.cfg_scale}; the bench needs above 1")


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


def bench_of(
    model: str,
    words: Sequence[str] = (),
    *,
    random_init: bool = False,
    repeats: int = 15,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Measures a model.

    Args:
        model: name, model folder or run; with `random_init` an architecture of `janus.SIZES`.
        words: parts to measure (none = all) and overrides of the configuration, such as rollout.group_size=32.
        random_init: random weights, no download.
        repeats: of every variant.
        progress: called with (repeats done, of).

    Returns:
        see `run`.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    parts = [word for word in words if "=" not in word] or list(PARTS)
    overrides = [word for word in words if "=" in word]
    check(bench_config(model, overrides), parts)  # before any weight is loaded
    loaded = random_janus(model) if random_init else load_model(model)
    janus = is_janus(loaded)
    made = prepare(bench_config(model, overrides, janus=janus), model=loaded)
    rewards = build_reward(bench_config(model, [f"reward.{name}.weight=1" for name in REWARDS]))
    return run(
        made,
        {name: reward for name, (_, reward) in rewards.parts.items()},
        parts=parts,
        repeats=repeats,
        memory=_memory_size(loaded, made.config) if janus else None,
        random_init=random_init,
        progress=progress,
    )


def _memory_size(model: Any, config: Any) -> MemorySize:
    """That of the model's own update, as far as 4,608 tokens."""
    samples = config.prompts.per_step * config.rollout.group_size
    return MemorySize(
        tokens=min(samples * model.grid[0] * model.grid[1], MemorySize.tokens),
        codes=model.codebook_size,
        width=model.language_model.config.hidden_size,
        chunk=max(1, model.logits_at_once // model.codebook_size),
    )
