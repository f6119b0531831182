"""Sampling: what keeping log-probs costs, and the least time that decoding can take, which reads weights and cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...api.memory import PROMPT
from ...api.parts import Parts
from ...prompts.batches import PromptBatches
from ...rollout.captured import eager_reason
from ...rollout.sampling import BENCH, decode_batch, derive_seed, sampling_noise
from .timing import Row, compared, interleaved, seconds

# bytes of a copy on a GPU; a CPU's caches hold less than the sixteenth that it copies
COPIED = 2**30
COPIES = 10


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy on the device reads and writes; the best of several."""
    size = COPIED if device.type == "cuda" else COPIED // 16
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    spent = [seconds(device, lambda: target.copy_(source)) for _ in range(COPIES)]
    return 2 * size / min(spent)


def bytes_read(model: Any, rows: int) -> int:
    """Of weights and cache, in decoding all image tokens of `rows` rows (both branches counted).

    Args:
        model: with a `language_model` whose config has transformers' names; its prompts have about PROMPT positions.
        rows: of the cache.
    """
    backbone = model.language_model.config
    heads = backbone.num_attention_heads
    shared = (getattr(backbone, "num_key_value_heads", None) or heads) / heads
    layers = list(model.language_model.layers.parameters())
    weights = sum(p.numel() * p.element_size() for p in layers)
    position = 2 * backbone.hidden_size * shared * len(model.language_model.layers)
    position *= layers[0].element_size() * rows
    steps = model.image_inputs
    filled = sum(PROMPT + step for step in range(1, steps + 1))
    return int(steps * weights + filled * position)


def reading_time(model: Any, rows: int) -> tuple[float, float]:
    """The limit of decoding `rows` rows on the model's device; image head and embeddings are left out.

    Returns:
        seconds to read weights and cache at every step of an image, and bytes a second.
    """
    bandwidth = copy_bandwidth(model.device)
    return bytes_read(model, rows) / bandwidth, bandwidth


@torch.no_grad()
def sampling_rows(made: Parts, repeats: int, done: Callable[[], None]) -> list[Row]:
    """Decoding alone: no encoding of prompts, no noise, no pictures, which would only dilute the difference."""
    model, settings, order = made.model, made.config.rollout, made.config.prompts
    tokens = model.grid[0] * model.grid[1]
    batches = PromptBatches(made.prompts, per_step=order.per_step, seed=order.seed)
    samples = order.per_step * settings.group_size

    def sampled(repeat: int, *, keep: bool = True, capture: bool = True) -> float:
        chosen = batches.batch(repeat)
        condition = model.condition([p.text for p in chosen], [p.negative for p in chosen])
        noise = sampling_noise(derive_seed(BENCH, repeat), 0, samples, tokens).to(model.device)
        how = settings.sampling | {"keep": keep, "capture": capture}
        return seconds(
            model.device, lambda: decode_batch(model, condition, settings.group_size, noise, **how)
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
        least, bandwidth = reading_time(model, 2 * samples)
        what = (
            f"the same, against reading weights and cache at {bandwidth / 1e9:,.0f} GB/s, the "
            "copy bandwidth of this device"
        )
        rows.append(compared(what, "s", ours, [least] * len(ours)))
    return rows
