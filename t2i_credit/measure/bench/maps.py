"""Where a reward looked: how long its map takes beside its number, and the memory of the gradient's, in chunks and at once.

`python -m t2i_credit.measure.bench.maps JSON` is the process of one memory measurement; see memory.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...api.models import load_model
from ...api.parts import Parts, build_maps, build_reward
from ...config.schema import Config, parse_config
from ...interfaces import Prompt, Rollout
from .janus import random_janus
from .memory import can_measure, in_process, used
from .timing import Row, compared, interleaved, seconds

# those that need no download: part, map, what is said of it
MEASURED = (
    ("clip", "gradient", "its gradient"),
    ("aesthetic", "gradient", "its gradient"),
    ("geneval", "objects", "right and wrong objects"),
    ("geneval", "occlusion", "blocks of 2 x 2 tokens occluded"),
)
TIMED, HELD = 32, 64  # images whose map is timed, and at most whose gradient is held at once


def map_rows(
    made: Parts, repeats: int, done: Callable[[], None], *, random_init: bool
) -> list[Row]:
    """Time of every map against that of the reward alone, and peak memory of the first one.

    Args:
        made: whose model and prompts are taken; images are of random codes.
        repeats: of every variant.
        done: called after each; `turns()` times `repeats` in all.
        random_init: whether the model has random weights, so that another process makes it again.
    """
    model, rows = made.model, []
    for name, kind, says in MEASURED:
        config = _config(name, kind)
        reward = build_reward(config)
        maps = build_maps(config, reward)
        assert maps is not None

        def mapped(repeat: int, maps: Any = maps, reward: Any = reward) -> float:
            rollout = drawn(model, made.prompts, TIMED, repeat)
            _, parts = reward(rollout.images, rollout.prompts)
            return seconds(model.device, lambda: maps(model, rollout, parts, seed=repeat))

        def judged(repeat: int, reward: Any = reward) -> float:
            rollout = drawn(model, made.prompts, TIMED, repeat)
            return seconds(model.device, lambda: reward(rollout.images, rollout.prompts))

        for variant in (mapped, judged):
            variant(0)  # what is set up once
        what = f"where {name} looked in {TIMED} images ({says}), against its number alone"
        rows.append(compared(what, "s", *interleaved(mapped, judged, repeats, done)))
    if can_measure():
        samples = made.config.prompts.per_step * made.config.rollout.group_size
        rows.append(_memory_row(made, min(HELD, samples), repeats, done, random_init))
    return rows


def turns() -> int:
    """How often `done` is called in each repeat."""
    return len(MEASURED) + can_measure()


def drawn(model: Any, prompts: Sequence[Prompt], samples: int, seed: int) -> Rollout:
    """Images of random codes, each of a prompt of its own."""
    shape = (samples, model.grid[0] * model.grid[1])
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.codebook_size, shape, generator=draw).to(model.device)
    unknown = torch.zeros(shape, device=model.device)
    with torch.no_grad():
        images = torch.cat([model.decode(part).float() for part in tokens.split(8)])
    return Rollout(
        prompts=[prompts[i % len(prompts)] for i in range(samples)],
        group_size=1,
        tokens=tokens,
        mask=torch.ones_like(tokens, dtype=torch.bool),
        logprobs=unknown,
        negative_logprobs=None,
        guided_logprobs=unknown,
        sampling_logprobs=unknown,
        entropy=unknown,
        images=images,
    )


def _config(name: str, kind: str, **more: Any) -> Config:
    return parse_config({"reward": {name: {"map": kind, **more}}})


def _memory_row(
    made: Parts, samples: int, repeats: int, done: Callable[[], None], random_init: bool
) -> Row:
    chunk = max(1, samples // 4)
    task = {"model": made.config.model.name, "random": random_init, "samples": samples}
    task |= {"prompts": [prompt.text for prompt in made.prompts[:samples]]}

    def peak(batch: int, repeat: int) -> float:
        told = in_process(__name__, task | {"batch": batch, "seed": repeat}, "a reward's gradient")
        return told["peak"] / 2**20

    found = interleaved(lambda i: peak(chunk, i), lambda i: peak(samples, i), repeats, done)
    what = f"peak memory of clip's gradient by the codes of {samples} images: {chunk} at a time, against all"
    return compared(what, "MiB", *found)


def measure(
    model: str, random: bool, samples: int, prompts: Sequence[str], batch: int, seed: int
) -> dict[str, float]:
    """The memory of a gradient map in this process, which should be a fresh one: {"peak": bytes above what model, reward and
    images take}."""
    torch.set_num_threads(1)
    loaded = random_janus(model) if random else load_model(model)
    config = _config("clip", "gradient", map_batch=batch)
    maps = build_maps(config, build_reward(config))
    assert maps is not None
    asked = [Prompt(text) for text in prompts]
    maps(
        loaded, drawn(loaded, asked, 1, seed), {}, seed=seed
    )  # so that what torch loads late is there
    rollout = drawn(loaded, asked, samples, seed)
    before, _ = used(loaded.device)
    maps(loaded, rollout, {}, seed=seed)
    return {"peak": float(used(loaded.device)[1] - before)}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
