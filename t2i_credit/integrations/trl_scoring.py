"""What both prompts and the frozen reference think of given completions, chunk by chunk. Assigns no credit.

Shapes: B completions, T tokens of the longest, L tokens of the longest prompt, V of the vocabulary, D features.
The statistics are those of logprobs.py, at temperature 1, with dropout off: logits of all positions never exist together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..interfaces import Reference
from ..logprobs import Head, token_statistics

Backbone = Callable[..., Any]


@dataclass(frozen=True)
class TextBatch:
    """Completions under one prompt each.

    Attributes:
        prompt_ids, prompt_mask: (B, L), padded on the left.
        completion_ids, completion_mask: (B, T), padded on the right; the mask is that of attention.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    def features(self, backbone: Backbone, rows: slice) -> Tensor:
        """(N, T, D): what the head makes the distribution of each completion token from."""
        tokens = torch.cat([self.prompt_ids[rows], self.completion_ids[rows]], dim=1)
        mask = torch.cat([self.prompt_mask[rows], self.completion_mask[rows]], dim=1)
        states = backbone(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        length = self.completion_ids.shape[1]
        return states[:, -length - 1 : -1]


def add_scoring_pass(model: Any) -> None:
    """Lets `model(score=f)` run `f(backbone, head)` inside the model's own forward.

    Wrappers (DDP, FSDP, DeepSpeed) act on the call of a model: what runs within sees whole parameters.
    """
    forward = model.forward

    @functools.wraps(forward)  # generation checks its arguments against the original signature
    def with_scoring(*args: Any, score: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        if score is None:
            return forward(*args, **kwargs)
        return score(model.base_model, model.get_output_embeddings())

    model.forward = with_scoring


@torch.no_grad()
def score(
    model: Any,
    needs: frozenset[str],
    positive: TextBatch,
    negative: TextBatch | None = None,
    *,
    reference_features: Tensor | None = None,
    reference_head: Head | None = None,
    rows: int,
) -> dict[str, Tensor]:
    """The credit's fields for given completions, without gradient.

    Args:
        model: one that `add_scoring_pass` was applied to, wrapped or not.
        needs: names out of trl_config.TEXT_FIELDS.
        positive: the completions under their prompts.
        negative: the same under their negative prompts, for negative_logprobs and full_kl.
        reference_features: (B, T, D) of the frozen reference, for hellinger.
        reference_head: the reference's head; None = the model's own.
        rows: completions per pass.

    Returns:
        {name: (B, T) float32}; off the mask they mean nothing.
    """
    if needs == {"negative_logprobs"}:  # a pass under the positive prompt would be for nothing
        assert negative is not None
        alone = score(model, frozenset({"logprobs"}), negative, rows=rows)
        return {"negative_logprobs": alone["logprobs"]}
    names = {name: "entropy" if name == "normalized_entropy" else name for name in sorted(needs)}
    want = list(dict.fromkeys(names.values()))
    tokens = positive.completion_ids

    def run(backbone: Backbone, head: Any) -> dict[str, Tensor]:
        parts: list[Mapping[str, Tensor]] = []
        for part in _chunks(len(tokens), rows):
            frozen = None
            if reference_features is not None:
                frozen = Reference(reference_features[part], None, reference_head or head)
            parts.append(
                token_statistics(
                    want,
                    tokens[part],
                    positive.features(backbone, part),
                    None if negative is None else negative.features(backbone, part),
                    head,
                    reference=frozen,
                )
            )
        return {name: torch.cat([part[name] for part in parts]) for name in want}

    with evaluating(model):
        found = model(score=run)
    fields = {name: found[statistic] for name, statistic in names.items()}
    if "normalized_entropy" in fields:
        fields["normalized_entropy"] = fields["normalized_entropy"] / math.log(
            model.config.get_text_config().vocab_size
        )
    return fields


@torch.no_grad()
def features(backbone: Backbone, batch: TextBatch, *, rows: int) -> Tensor:
    """(B, T, D) of a frozen backbone, without gradient."""
    parts = _chunks(len(batch.completion_ids), rows)
    return torch.cat([batch.features(backbone, part) for part in parts])


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off: two prompts are compared, not two draws of noise."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, total, size)]
