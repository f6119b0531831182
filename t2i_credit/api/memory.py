"""How much memory a run will take, from the sizes of the model, before anything is tried; and its end in words.

Measures nothing. Shapes: N rows of a pass (both branches counted), S positions of a row (prompt and image), D hidden size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..config.schema import Config
from ..errors import ConfigError, TrainingError, ran_out
from ..training.policy import Policy, samples_in_a_pass

PROMPT = 32  # positions of a prompt, about
PER_LAYER = 34  # values that a layer keeps for the backward pass, per position and width, about
OF_WEIGHTS = (
    "train an adapter (tune.lora_rank), share the parameters out over several processes (train.sharding=full), or take "
    "model.dtype=bfloat16"
)
KNOBS = (
    "lower train.micro_batch_size (or micro_batch_tokens) or rollout.batch_size, set tune.recompute=true, "
    + OF_WEIGHTS
)
# what errors that are no MemoryError and no OutOfMemoryError say


def estimate(model: Any, config: Config, *, reference: bool, processes: int = 1) -> dict[str, int]:
    """Bytes of one process by purpose; the total counts the larger of sampling and training, which take turns.

    Not counted: reward models, the image decoder at work, what the device's libraries take.

    Args:
        model: with a `language_model` whose config has transformers' names.
        config: how it is sampled and trained.
        reference: whether a frozen copy of the trained tensors is held.
        processes: that share the prompts out, and the parameters where the configuration says so.
    """
    held = held_throughout(model, config, reference=reference, processes=processes)
    parts = _parts(config, processes)
    shared_out = _bytes(_shared_out(model))
    lent = shared_out - shared_out // parts  # what the other processes hold
    backbone = model.language_model.config
    width, layers = backbone.hidden_size, backbone.num_hidden_layers
    heads = backbone.num_attention_heads
    shared = (getattr(backbone, "num_key_value_heads", None) or heads) / heads
    value = next(model.language_model.parameters()).element_size()
    samples = -(-config.prompts.per_step // processes) * config.rollout.group_size
    tokens = model.grid[0] * model.grid[1]
    rows = 2 * min(config.rollout.batch_size or samples, samples)
    cache = round(rows * (tokens + PROMPT) * 2 * width * shared * layers * value)
    branches = 1 + Policy.of(config).both_branches
    micro = samples_in_a_pass(config, model.grid, samples)
    positions = branches * min(micro, samples) * (tokens + PROMPT)
    kept = layers + PER_LAYER if config.tune.recompute else layers * PER_LAYER
    mixed = config.train.precision == "bf16"
    activations = positions * width * kept * (2 if mixed else value)
    # what autocast made of trained float32 weights, it remembers until the pass is over
    wide = [p for p in model.parameters() if p.requires_grad and p.element_size() > 2]
    rounded = mixed * sum(2 * p.numel() for p in wide)
    sampling = cache + lent + rounded  # all is gathered for it
    training = activations + rounded
    running = held["weights"] + held["optimizer"] + max(sampling, training)
    total = max(held["starting"], running)
    return held | {"sampling": sampling, "training": training, "total": total}


def held_throughout(
    model: Any, config: Config, *, reference: bool, processes: int = 1
) -> dict[str, int]:
    """Bytes of one process that no knob of sampling or training changes; see `estimate`.

    Returns:
        weights: with a reference, a moving average and a critic's copy.
        optimizer: gradient, two moments, and what DDP sends of the gradient; a copy's, too.
        starting: model and reference as they are before they are shared out.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = _parts(config, processes)
    moving = _bytes(trained) // parts
    whole = _bytes(model.parameters())
    shared_out = _bytes(_shared_out(model)) if parts > 1 else 0
    averaged = sum(4 * p.numel() for p in trained) // parts
    copies = moving * reference + averaged * (config.tune.ema is not None)
    sent = processes > 1 and parts == 1
    critic = config.credit.has_critic and config.critic.kind == "copy"
    return {
        "weights": whole - shared_out + shared_out // parts + copies + critic * moving,
        "optimizer": (3 + sent + 3 * critic) * moving,
        "starting": whole + _bytes(trained) * reference,
    }


def _parts(config: Config, processes: int) -> int:
    """Into how many parts parameters are shared out."""
    return processes if config.train.sharding == "full" else 1


def _shared_out(model: Any) -> list[Tensor]:
    """The parameters that `processes.shard` shares out."""
    inside = set(model.language_model.parameters())
    return [p for p in model.parameters() if p.requires_grad or p in inside]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def available(device: str) -> int:
    """Bytes of a device's memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_room(needed: int, device: str, knobs: str = KNOBS) -> None:
    """Raises ConfigError where so many bytes are more than there is, with what saves some."""
    there = available(device)
    if needed > there:
        raise ConfigError(
            f"about {needed / 2**30:.1f} GiB are needed and {device} has {there / 2**30:.1f}: {knobs}"
        )


@contextmanager
def out_of_memory(then: str = "") -> Iterator[None]:
    """Says which knob to turn, and what to do then."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise TrainingError(f"out of memory: {KNOBS}{then}") from error
