"""What one rollout of text holds, for whoever records or looks at it. Knows no trainer.

Shapes: B completions, T tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class TextRollout:
    """The completions that one process sampled, groups in order, and their credit.

    Attributes:
        step: the optimizer step that they are first used in, from 1.
        prompts: B prompts, as trl takes them: texts or lists of messages.
        negatives: B negative prompts, or None.
        tokens: (B, T) int64.
        mask: (B, T) bool, True = counts in the loss.
        sampled: (B, T) bool, True = of the completion; a cut-off one that the loss leaves out is here.
        rewards: (B,) weighted; a reference answer has its own.
        reward_parts: {name: (B,)} before the weight.
        advantages: (B,).
        credit: (B, T), row mean 1 over the mask.
        token_advantages: (B, T).
        fields: {name: (B, T)}: logprobs, entropy and, where there are negative prompts, negative_logprobs, at
            temperature 1; whatever else the credit reads.
        gold: (B,) bool, True = a reference answer and not a sample of the model.
    """

    step: int
    prompts: list[Any]
    negatives: list[Any] | None
    tokens: Tensor
    mask: Tensor
    sampled: Tensor
    rewards: Tensor
    reward_parts: Mapping[str, Tensor]
    advantages: Tensor
    credit: Tensor
    token_advantages: Tensor
    fields: Mapping[str, Tensor]
    gold: Tensor


class Watch(Protocol):
    """Someone who looks at rollouts in training."""

    def wants(self, step: int) -> bool:
        """Whether to be called at this step: what is shown beyond the credit's own needs costs a pass."""
        ...

    def __call__(self, rollout: TextRollout) -> None: ...
