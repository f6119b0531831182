"""How much memory a run will take, from the sizes of the model, before anything is tried. Measures nothing.

Shapes: N rows of a pass (both branches counted), S positions of a row (prompt and image), D hidden size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .config import Config
from .errors import ConfigError

PROMPT = 32  # positions of a prompt, about
PER_LAYER = (
    34  # values that a layer keeps for the backward pass, per position and unit of width, about
)
KNOBS = (
    "lower train.micro_batch_size (or micro_batch_tokens) or rollout.batch_size, set tune.recompute=true, "
    "train an adapter (tune.lora_rank), share the parameters out over several processes (train.sharding=full), or take "
    "model.dtype=bfloat16"
)


def estimate(model: Any, config: Config, *, reference: bool, processes: int = 1) -> dict[str, int]:
    """Bytes of one process by purpose; the total counts the larger of sampling and training, which take turns.

    Args:
        model: with a `language_model` whose config has transformers' names.
        config: how it is sampled and trained.
        reference: whether a frozen copy of the trained tensors is held.
        processes: that share the parameters out, where the configuration says so.
    """
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    parts = processes if config.train.sharding == "full" else 1
    inside = set(model.language_model.parameters())
    shared_out = _bytes(p for p in parameters if p.requires_grad or p in inside)
    lent = shared_out - shared_out // parts  # what the other processes hold
    held = _bytes(parameters) - lent
    moving = _bytes(trained) // parts
    backbone = model.language_model.config
    width, layers = backbone.hidden_size, backbone.num_hidden_layers
    heads = backbone.num_attention_heads
    shared = (getattr(backbone, "num_key_value_heads", None) or heads) / heads
    value = next(model.language_model.parameters()).element_size()
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = model.grid[0] * model.grid[1]
    rows = 2 * min(config.rollout.batch_size or samples, samples)
    cache = round(rows * (tokens + PROMPT) * 2 * width * shared * layers * value)
    branches = 2 if config.loss.policy == "guided" and config.rollout.cfg_scale != 1 else 1
    micro = config.train.micro_batch_size or samples
    if config.train.micro_batch_tokens:
        micro = max(1, config.train.micro_batch_tokens // (tokens * branches))
    positions = branches * min(micro, samples) * (tokens + PROMPT)
    kept = layers + PER_LAYER if config.tune.recompute else layers * PER_LAYER
    working = 2 if config.train.precision == "bf16" else value
    activations = positions * width * kept * working
    optimizer = 3 * moving  # gradient and two moments
    averaged = sum(4 * p.numel() for p in trained) // parts
    copies = moving * reference + averaged * (config.tune.ema is not None)
    sampling = cache + lent  # which is gathered for it
    return {
        "weights": held + copies,
        "optimizer": optimizer,
        "sampling": sampling,
        "training": activations,
        "total": held + copies + optimizer + max(sampling, activations),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def available(device: str) -> int:
    """Bytes of a device's memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_room(needed: dict[str, int], device: str) -> None:
    """Raises ConfigError where the estimate is more than there is."""
    there = available(device)
    if needed["total"] > there:
        raise ConfigError(
            f"about {needed['total'] / 2**30:.1f} GiB are needed and {device} has {there / 2**30:.1f}: {KNOBS}"
        )
