"""The least time that decoding can take: every step reads the transformer's weights and its cache. Samples nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .memory import PROMPT
from .stopwatch import seconds

COPIED = (
    2**30
)  # bytes of a copy on a GPU; a CPU's caches hold less than the sixteenth that it copies
COPIES = 10


class Limit(NamedTuple):
    """Attributes:
    seconds: to read weights and cache at every step of an image.
    bandwidth: bytes a second.
    """

    seconds: float
    bandwidth: float


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


def reading_time(model: Any, rows: int) -> Limit:
    """The limit of decoding `rows` rows on the model's device; image head and embeddings are left out."""
    bandwidth = copy_bandwidth(model.device)
    return Limit(bytes_read(model, rows) / bandwidth, bandwidth)
