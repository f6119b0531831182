"""The policy that is trained and measured: what its passes and those of its reference compute, and how many a step takes.

Samples and updates nothing. Samples kept for the run folder, further rounds of dynamic sampling and golden references
come on top of the passes of a step. A layer that is recomputed in the backward pass is not counted: it makes no pass
of its own. Shapes: P prompts, G samples of each, B = P*G samples, T image tokens; N = the samples of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config.schema import Config
from ..credit.entry import CreditEntry
from ..interfaces import Rollout
from ..rollout.logprobs import needs_negative

# what a credit entry calls the fields of an update, by policy, and what the model calls them
_STATISTICS = {
    "guided": {"hellinger": "guided_hellinger", "normalized_entropy": "guided_entropy"},
    "conditional": {"hellinger": "hellinger", "normalized_entropy": "entropy"},
}


@dataclass(frozen=True)
class Policy:
    """A generator, how it is guided, and what it is compared with.

    Attributes:
        model: what runs a pass: the generator, in training as accelerate prepared it.
        reference: the frozen model that its run began from, or the model itself where it has left nothing yet; None
            where nothing asks for one.
        form: guided or conditional, as `loss.policy` has it.
        cfg_scale, temperature: of the guided distribution.
        batch_size: most samples in one pass of `fields`, but at least a group; None = all.
        sampler: the model without accelerate's wrapping; None = the model itself.
        rounding: the number format that accelerate gives the model's own passes, for those of the reference.
    """

    model: Any
    reference: Any | None
    form: str
    cfg_scale: float
    temperature: float
    batch_size: int | None = None
    sampler: Any = None
    rounding: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(
        cls, config: Config, model: Any = None, reference: Any | None = None, **more: Any
    ) -> Policy:
        """The policy that a configuration trains; without a model it runs nothing. `more`: `sampler`, `rounding`."""
        rollout = config.rollout
        settings = (rollout.cfg_scale, rollout.temperature, rollout.batch_size)
        return cls(model, reference, config.loss.policy, *settings, **more)

    @property
    def both_branches(self) -> bool:
        """Whether it is a distribution of both branches: guided, by a scale that guides."""
        return self.form == "guided" and self.cfg_scale != 1

    @property
    def logprobs(self) -> str:
        """What the model, and a rollout, call the log-probs of the taken tokens in the policy's own form."""
        return "guided_logprobs" if self.form == "guided" else "logprobs"

    @property
    def statistics(self) -> dict[str, str]:
        """{field of an update: what the model calls it}, but for those of the reference."""
        return _STATISTICS[self.form] | {"policy_logprobs": self.logprobs}

    def takes_another_branch(self, statistic: str) -> bool:
        """Whether the model must run the negative branch for it, which the policy itself does not run."""
        return needs_negative(statistic, self.cfg_scale) and not self.both_branches

    def ask(
        self,
        rollout: Rollout,
        rows: Tensor,
        names: Mapping[str, str],
        *,
        of_reference: bool = False,
        negatives: bool = True,
    ) -> dict[str, Tensor]:
        """A pass over the tokens of the samples at `rows`: {field: (N, T)} for {field: the model's statistic}.

        Args:
            rollout: whole groups.
            rows: (N,).
            names: what is asked.
            of_reference: asks the frozen reference instead of the model.
            negatives: whether the condition holds the prompts' negatives.
        """
        if not names:
            return {}
        sampler = self.sampler or self.model
        size = rollout.group_size
        owners = _owners_of(rows, size)
        prompts = rollout.prompts[::size]
        texts = [p.text for p in prompts]
        against = [p.negative for p in prompts] if negatives else None
        condition = sampler.condition(texts, against).select(owners)
        tokens = rollout.tokens[rows]
        frozen = None
        if "hellinger" in names and self.reference is not None:
            seen = condition
            if not self.both_branches:  # a frozen model's negative branch would run for nothing
                seen = sampler.condition(texts, None).select(owners)
            with self.rounding():
                frozen = self.reference.reference(seen, tokens)
        asked: Any = self.reference if of_reference else self.model
        with self.rounding() if of_reference else nullcontext():
            found = asked(
                condition,
                tokens,
                want=list(dict.fromkeys(names.values())),
                reference=frozen,
                cfg_scale=self.cfg_scale,
                temperature=self.temperature,
            )
        fields = {field: found[statistic] for field, statistic in names.items()}
        if "normalized_entropy" in fields:
            largest = math.log(sampler.codebook_size)
            fields["normalized_entropy"] = fields["normalized_entropy"] / largest
        return fields

    def batch_prompts(self, rollout: Rollout) -> int:
        """How many prompts of a rollout one pass of `fields` takes."""
        return max(1, (self.batch_size or len(rollout)) // rollout.group_size)

    @torch.no_grad()
    def fields(self, names: Collection[str], rollout: Rollout) -> dict[str, Tensor]:
        """The fields of an update, as training takes them: {name: (B, T)} for names out of UPDATE_FIELDS.

        The negatives are those of the rollout's prompts.
        """
        own = {name: self.statistics[name] for name in names if name != "ref_logprobs"}
        theirs = {name: self.logprobs for name in names if name == "ref_logprobs"}
        rows = torch.arange(len(rollout), device=rollout.tokens.device)
        both = self.both_branches
        parts = []
        for some in rows.split(self.batch_prompts(rollout) * rollout.group_size):
            found = self.ask(rollout, some, own, negatives=both)
            found |= self.ask(rollout, some, theirs, of_reference=True, negatives=both)
            parts.append(found)
        return {name: torch.cat([part[name] for part in parts]) for name in names}


def _owners_of(rows: Tensor, group_size: int) -> Tensor:
    """The prompts of the samples at `rows` (N,), for a pass over them; of whole groups each prompt once."""
    owners = rows // group_size
    whole_groups = len(rows) % group_size == 0 and bool(
        (rows[::group_size] % group_size == 0).all()
    )
    return owners[::group_size] if whole_groups else owners


class Passes(NamedTuple):
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
        return sum(self)


def samples_in_a_pass(config: Config, grid: tuple[int, int], samples: int) -> int:
    """Most of so many samples in one forward and backward pass."""
    if limit := config.train.micro_batch_tokens:
        return max(1, limit // (grid[0] * grid[1] * (1 + Policy.of(config).both_branches)))
    return config.train.micro_batch_size or samples


def mixed_precision(config: Config, device: torch.device) -> torch.autocast:
    """The number format of a step's passes, sampling included, as `accelerate` sets it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def passes_needed(config: Config, entry: CreditEntry) -> Passes:
    """What a step of the configuration takes, all its updates together."""
    needs = entry.fields_needed(**config.credit.params)
    scale, both = config.rollout.cfg_scale, Policy.of(config).both_branches
    negative = {name for name in needs if needs_negative(name, scale)}
    policy = 1 + both
    held = config.loss.kl_coef > 0 or "ref_logprobs" in needs
    reference = policy * (held + ("hellinger" in needs))
    # the negative log-probs are of one branch, all else of both
    other_branch = 2 if negative - {"negative_logprobs"} else len(negative)
    refresh = other_branch if config.credit.refresh and not both else 0
    updates = config.loss.updates_per_rollout
    again = policy if config.loss.old == "recompute" and updates > 1 else 0
    # a critic's passes of the positive branch: of what was sampled, and as many images each time it learns
    values = int(config.credit.has_critic)
    learned = values * config.critic.updates
    deep = config.critic.kind != "head"  # its gradient runs through a transformer
    return Passes(
        decode=2 if scale != 1 or negative else 1,
        policy=updates * policy + learned * deep,
        frozen=again + updates * (reference + refresh) + values + learned * (not deep),
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
