"""The policy whose credit is measured, and what passes of it and of its reference tell. Samples and updates nothing.

Shapes: P prompts, G samples of each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..config.schema import Config
from ..credit.entry import CreditEntry
from ..interfaces import Condition, Rollout

# what a credit entry calls the fields of an update, by policy, and what the model calls them
POLICY_STATISTICS = {
    "guided": {"hellinger": "guided_hellinger", "normalized_entropy": "guided_entropy"},
    "conditional": {"hellinger": "hellinger", "normalized_entropy": "entropy"},
}


@dataclass(frozen=True)
class Policy:
    """A generator, how it is guided, and what it is compared with.

    Attributes:
        model: the generator.
        reference: the frozen model that its run began from, or the model itself where it has left nothing yet; None
            where no credit asks for one.
        form: guided or conditional, as `loss.policy` has it.
        cfg_scale, temperature: of the guided distribution.
        batch_size: most samples in one pass, but at least a group; None = all.
    """

    model: Any
    reference: Any | None
    form: str
    cfg_scale: float
    temperature: float
    batch_size: int | None = None

    @classmethod
    def of(cls, config: Config, model: Any, reference: Any | None) -> Policy:
        """The policy that a configuration trains."""
        rollout = config.rollout
        settings = (rollout.cfg_scale, rollout.temperature, rollout.batch_size)
        return cls(model, reference, config.loss.policy, *settings)

    def batch_prompts(self, rollout: Rollout) -> int:
        """How many prompts of a rollout one pass takes."""
        return max(1, (self.batch_size or len(rollout)) // rollout.group_size)

    @torch.no_grad()
    def fields(self, names: Collection[str], rollout: Rollout) -> dict[str, Tensor]:
        """The fields of an update, as training takes them: {name: (B, T)} for names out of UPDATE_FIELDS in credit.py.

        The negatives are those of the rollout's prompts.
        """
        if not names:
            return {}
        size, count = rollout.group_size, self.batch_prompts(rollout)
        prompts = rollout.prompts[::size]
        both = self.form == "guided" and self.cfg_scale != 1
        negatives = [p.negative for p in prompts] if both else None
        condition = self.model.condition([p.text for p in prompts], negatives)
        parts = []
        for start in range(0, len(prompts), count):
            index = torch.arange(start, min(start + count, len(prompts)))
            tokens = rollout.tokens[start * size : (start + count) * size]
            parts.append(self._pass(names, condition.select(index.to(tokens.device)), tokens))
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _pass(
        self, names: Collection[str], condition: Condition, tokens: Tensor
    ) -> dict[str, Tensor]:
        taken = "guided_logprobs" if self.form == "guided" else "logprobs"
        statistics = POLICY_STATISTICS[self.form] | {"policy_logprobs": taken}
        own = {name: statistics[name] for name in names if name != "ref_logprobs"}
        found: dict[str, Tensor] = {}
        if own:
            frozen = None
            if "hellinger" in own:
                assert self.reference is not None
                frozen = self.reference.reference(condition, tokens)
            seen = self._statistics(self.model, condition, tokens, own.values(), frozen)
            found = {name: seen[statistic] for name, statistic in own.items()}
        if "normalized_entropy" in found:
            found["normalized_entropy"] /= math.log(self.model.codebook_size)
        if "ref_logprobs" in names:
            asked = self._statistics(self.reference, condition, tokens, [taken])
            found["ref_logprobs"] = asked[taken]
        return found

    def _statistics(
        self,
        model: Any,
        condition: Condition,
        tokens: Tensor,
        want: Collection[str],
        reference: Any = None,
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model(
            condition,
            tokens,
            want=list(dict.fromkeys(want)),
            reference=reference,
            cfg_scale=self.cfg_scale,
            temperature=self.temperature,
        )
        return found


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
        rows, inputs = given["inputs_embeds"].shape[:2]
        if given.get("past_key_values") is not None:  # image tokens after a prompt that ran before
            self.inputs += rows * inputs
        elif not given["use_cache"]:  # prompt and image together
            self.inputs += rows * self.image_inputs


def owners_of(rows: Tensor, group_size: int) -> Tensor:
    """The prompts of the samples at `rows` (N,), for a pass over them; of whole groups each prompt once."""
    owners = rows // group_size
    whole_groups = len(rows) % group_size == 0 and bool(
        (rows[::group_size] % group_size == 0).all()
    )
    return owners[::group_size] if whole_groups else owners
