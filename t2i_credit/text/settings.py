"""What token credit for text is configured with, and what it refuses. Trains nothing and loads no weights.

`TextCreditConfig` stands beside trl's `GRPOConfig`; its credit section is that of the images, checked by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config.messages import KeyProblem, parse, show
from ..config.plugins import CreditConfig
from ..config.values import Section
from ..credit.entry import CreditEntry
from ..credit.fields import UPDATE_FIELDS
from ..errors import ConfigError

PUBLISHED_NEGATIVE = "Intentionally generate an incorrect answer."  # 2605.29198
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo")  # that take an advantage per token
# Credit fields that a text has; the others are about images, their groups or their guidance.
POSITIVE_FIELDS = frozenset({"logprobs", "entropy", "normalized_entropy"})
NEGATIVE_FIELDS = frozenset({"negative_logprobs", "full_kl"})
REFERENCE_FIELDS = frozenset({"hellinger"})
TEXT_FIELDS = POSITIVE_FIELDS | NEGATIVE_FIELDS | REFERENCE_FIELDS
# Names under which transformers' configurations scale or cap the logits behind the head.
_LOGIT_SCALES = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)

Negative = str | Callable[[Mapping[str, Any]], Any]


class _CreditOnly(Section):
    """A configuration of the credit section alone, so that it is checked and explained as everywhere."""

    credit: CreditConfig


@dataclass(frozen=True)
class TextCreditConfig:
    """Token credit for text, beside trl's `GRPOConfig`.

    Attributes:
        credit: a name of the credit table, or the `credit:` section of a configuration: {"name": "guidance_contrast",
            "kind": "abs", "refresh": True}.
        negative: the negative prompt: a suffix, set behind the prompt with one space (`PUBLISHED_NEGATIVE` is that of
            the paper), or a function of the example that gives a prompt of the same form as the positive one.
        negative_column: or the column that holds it.
        gold: the column of reference answers; where a group fails as a whole, one takes the place of its last sample.
        fail_below: gold: an answer has failed if its weighted reward is at most this.
        gold_reward: gold: the weighted reward of a reference answer.
        section: the checked credit section, defaults filled in.
    """

    credit: str | Mapping[str, Any] = "uniform"
    negative: Negative | None = None
    negative_column: str | None = None
    gold: str | None = None
    fail_below: float = 0.0
    gold_reward: float = 1.0
    section: CreditConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tree = {"name": self.credit} if isinstance(self.credit, str) else self.credit
        object.__setattr__(self, "section", parse(_CreditOnly, {"credit": tree}).credit)
        for key, problem in self._disagreements():
            raise KeyProblem(key, problem)

    @staticmethod
    def compares(section: CreditConfig) -> bool:
        """Whether the credit compares the prompt with a negative one."""
        return bool(section.entry.fields_needed(**section.params) & NEGATIVE_FIELDS)

    @property
    def entry(self) -> CreditEntry:
        """The entry of the credit table, or a user's function as one."""
        return self.section.entry

    @property
    def needs(self) -> frozenset[str]:
        """The fields that the credit reads."""
        return self.entry.fields_needed(**self.section.params)

    @property
    def uniform(self) -> bool:
        return self.entry.even

    @property
    def needs_negative(self) -> bool:
        return self.compares(self.section)

    @property
    def renews(self) -> bool:
        """Whether the policy of each update decides the credit, and not that of the rollout."""
        return self.section.refresh or bool(self.needs & UPDATE_FIELDS)

    def _disagreements(self) -> Iterator[tuple[str, str]]:
        name = self.section.name
        if foreign := sorted(self.needs - TEXT_FIELDS):
            yield "credit.name", f"'{name}' is refused for text: it needs {foreign[0]}, of images"
        if self.section.refresh and (why := self.entry.refresh):
            yield "credit.refresh", f"true is refused with credit.name '{name}': {why}"
        yield from self._of_the_negative(name)
        if self.gold is not None:
            if not self.uniform:
                yield (
                    "gold",
                    f"is refused with credit.name '{name}': a reference answer was never sampled token by "
                    "token, its ratio is one per answer, and credit cancels out of that; use uniform",
                )
            if self.gold_reward <= self.fail_below:
                yield (
                    "gold_reward",
                    f"value {self.gold_reward} is not allowed; above fail_below ({self.fail_below}), or a "
                    "reference answer would count as a failure",
                )

    def _of_the_negative(self, name: str) -> Iterator[tuple[str, str]]:
        given = self.negative is not None, self.negative_column is not None
        if all(given):
            yield "negative_column", "is refused with negative: one of the two"
        if any(given) and not self.needs_negative:
            yield (
                "negative_column" if given[1] else "negative",
                f"is refused with credit.name '{name}': it compares no prompts",
            )
        if not any(given) and self.needs_negative:
            yield (
                "negative",
                f"is missing: credit.name '{name}' compares the prompt with a negative one; a suffix "
                f"such as {PUBLISHED_NEGATIVE!r}, a function of the example, or negative_column",
            )
        if isinstance(self.negative, str) and not self.negative.strip():
            yield (
                "negative",
                f"suffix {show(self.negative)} leaves the prompt as it is: a negative prompt equal to the "
                "positive shows no contrast",
            )


# What trl's settings must be with token credit, or with gold, and how the refusal of any other value ends.
_WITH_CREDIT: dict[str, tuple[Sequence[Any], str]] = {
    "loss_type": (LOSS_TYPES, f"; one of {', '.join(LOSS_TYPES)}"),
    "importance_sampling_level": (
        ["token"],
        ": one ratio per answer gives all its tokens the same gradient, and the credit cancels; use token",
    ),
    "use_liger_kernel": ([False, None], ": the fused loss knows no token credit"),
}
_WITH_GOLD: dict[str, tuple[Sequence[Any], str]] = {
    "importance_sampling_level": (
        ["sequence"],
        ": a reference answer was never sampled token by token; use sequence",
    ),
    "beta": ([0], ": the KL term pulls the policy away from the reference answer; use 0"),
    "multi_objective_aggregation": (
        ["sum_then_normalize"],
        ": a reference answer has a total reward and no parts to normalise; use sum_then_normalize",
    ),
}


def check_arguments(config: TextCreditConfig, args: Any, others: Mapping[str, Any]) -> None:
    """Refuses trl settings under which token credit, or a golden answer, would not mean what it says.

    Args:
        config: the credit.
        args: trl's GRPOConfig.
        others: the trainer's arguments tools, rollout_func and environment_factory.

    Raises:
        KeyProblem: one line that names the setting.
    """
    if config.uniform and config.gold is None:
        return
    gold = config.gold is not None
    what = "gold" if gold else f"credit.name '{config.section.name}'"
    if args.remove_unused_columns and (config.gold or config.negative_column):
        why = "its column would be removed"
        raise KeyProblem("remove_unused_columns", f"true is refused with {what}: {why}")
    for name, value in others.items():
        if value is not None:
            why = "only the trainer's own sampling of one turn is known"
            raise KeyProblem(name, f"is refused with {what}: {why}")
    for name, (allowed, why) in (_WITH_GOLD if gold else _WITH_CREDIT).items():
        value = getattr(args, name)
        if value not in allowed:
            text = isinstance(value, str)
            shown = repr(value) if text else "true" if value is True else f"value {value}"
            raise KeyProblem(name, f"{shown} is refused with {what}{why}")
    if gold and (weights := args.reward_weights) is not None and sum(weights) <= 0:
        problem = f"{weights} is refused with gold: their sum must be above 0"
        raise KeyProblem("reward_weights", problem)
    if not gold and (quantile := args.top_entropy_quantile) < 1:
        why = "two choices of tokens at once; use credit top_entropy, or quantile 1"
        raise KeyProblem("top_entropy_quantile", f"value {quantile} is refused with {what}: {why}")


def check_model(model: Any, config: TextCreditConfig, *, images: bool = False) -> None:
    """Refuses models whose next-token distribution is not softmax(head(features)), or whose prompts may have images.

    Raises:
        ConfigError: one line that names the setting of the model.
    """
    if images and not (config.uniform and config.gold is None):
        raise ConfigError(
            "processing_class: images in prompts are refused with token credit or gold"
        )
    if config.uniform:
        return
    what = f"credit.name '{config.section.name}'"
    settings = model.config.get_text_config()
    for name in _LOGIT_SCALES:
        if getattr(settings, name, None) not in (None, 1.0):
            raise ConfigError(
                f"model: {name} is refused with {what}: it changes the logits behind the head"
            )
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.is_prompt_learning:
            kind = adapter.peft_type.value
            raise ConfigError(
                f"peft_config: {kind} is refused with {what}: it adds tokens to the prompt"
            )
