"""The bench of a model by name: its configuration, its parts, the rewards. The measures are bench.py's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import api, bench
from .bench_janus import bench_config, is_janus, random_janus
from .bench_memory import MemorySize

REWARDS = ("geneval", "clip", "aesthetic")  # those that need no download


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
        model: name, model folder or run; with `random_init` an architecture of `bench_janus.SIZES`.
        words: parts to measure (none = all) and overrides of the configuration, such as rollout.group_size=32.
        random_init: random weights, no download.
        repeats: of every variant.
        progress: called with (repeats done, of).

    Returns:
        see `bench.run`.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    parts = [word for word in words if "=" not in word] or list(bench.PARTS)
    overrides = [word for word in words if "=" in word]
    bench.check(bench_config(model, overrides), parts)  # before any weight is loaded
    loaded = random_janus(model) if random_init else api.load_model(model)
    janus = is_janus(loaded)
    made = api.prepare(bench_config(model, overrides, janus=janus), model=loaded)
    rewards = api.build_reward(bench_config(model, [f"reward.{name}.weight=1" for name in REWARDS]))
    return bench.run(
        made.config,
        model=made.model,
        reward=made.reward,
        advantage=made.advantage,
        prompts=made.prompts,
        reference=made.reference,
        rewards={name: reward for name, (_, reward) in rewards.parts.items()},
        parts=parts,
        repeats=repeats,
        memory=_memory_size(loaded, made.config) if janus else None,
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
