"""Forward passes of a training step: how many per image token a configuration needs, how many a model ran, and of how
many samples one is.

Samples kept for the run folder, further rounds of dynamic sampling and golden references come on top. A layer that is
recomputed in the backward pass is not counted: it makes no pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch

from .config import Config
from .credit import CreditEntry


@dataclass(frozen=True)
class Passes:
    """Rows of the transformer per image token.

    Attributes:
        decode: cached, in sampling.
        policy: with gradient.
        frozen: without: reference, refreshed credit, recomputed log-probs.
    """

    decode: int
    policy: int
    frozen: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def both_branches(config: Config) -> bool:
    """Whether the policy is a distribution of both branches: guided, by a scale that guides."""
    return config.loss.policy == "guided" and config.rollout.cfg_scale != 1


def samples_in_a_pass(config: Config, grid: tuple[int, int], samples: int) -> int:
    """Most of so many samples in one forward and backward pass."""
    if limit := config.train.micro_batch_tokens:
        return max(1, limit // (grid[0] * grid[1] * (2 if both_branches(config) else 1)))
    return config.train.micro_batch_size or samples


def mixed_precision(config: Config, device: torch.device) -> torch.autocast:
    """The number format of a step's passes, sampling included, as `accelerate` sets it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def passes_needed(config: Config, entry: CreditEntry) -> Passes:
    """What a step of the configuration takes, all its updates together."""
    needs = entry.fields_needed(**config.credit.params)
    guided = config.rollout.cfg_scale != 1
    both = both_branches(config)
    negative = bool({"negative_logprobs", "full_kl", "code_shift"} & needs)
    policy = 2 if both else 1
    held = config.loss.kl_coef > 0 or "ref_logprobs" in needs
    reference = policy * (held + ("hellinger" in needs))
    apart = {
        "full_kl",
        "code_shift",
        *({"guided_entropy"} if guided else ()),
    } & needs  # of both branches
    other_branch = 2 if apart else int("negative_logprobs" in needs)
    refresh = other_branch if config.credit.refresh and not both else 0
    updates = config.loss.updates_per_rollout
    again = policy if config.loss.old == "recompute" and updates > 1 else 0
    return Passes(
        decode=2 if guided or negative else 1,
        policy=updates * policy,
        frozen=again + updates * (reference + refresh),
    )


class PassCounter:
    """Counts by a hook on the transformer.

    Attributes:
        inputs: image tokens' inputs that went through it, over all rows; the last token of an image is never read.
    """

    def __init__(self, model: Any) -> None:
        self.image_inputs: int = model.image_inputs
        self.inputs = 0

    def per_token(self, images: int) -> float:
        """Passes per image token of so many images."""
        return self.inputs / (images * self.image_inputs)

    @contextmanager
    def counting(self, *models: Any) -> Iterator[None]:
        """Counts what these models run inside."""
        handles = [
            model.language_model.register_forward_pre_hook(self._count, with_kwargs=True)
            for model in models
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, module: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        from transformers.cache_utils import Cache

        rows, inputs = given["inputs_embeds"].shape[:2]
        after_prompt = any(isinstance(value, Cache) for value in given.values())
        if after_prompt:  # image tokens after a prompt that ran before
            self.inputs += rows * inputs
        elif not given["use_cache"]:  # prompt and image together
            self.inputs += rows * self.image_inputs
