"""What both prompts and the frozen reference think of given completions, chunk by chunk. Assigns no credit.

The reference is the model with its adapter off, or a frozen copy. Shapes: B completions, T tokens of the longest, L
tokens of the longest prompt, V of the vocabulary, D features. The statistics are those of rollout/logprobs.py, at
temperature 1, with dropout off: logits of all positions never exist together.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from trl.trainer.utils import use_adapter

from ..interfaces import Reference
from ..rollout.logprobs import Head, token_statistics

ADAPTER = "ref"  # trl's name of the copy of an adapter that was trained before

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
        needs: names out of settings.TEXT_FIELDS.
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


class TextReference:
    """trl's own reference if there is one, with adapters the model without what is trained now, else a copy.

    Args:
        policy: the model that trains, before anything wraps it.
        model: trl's reference, or None.
        cast_head: whether trl made the policy's head compute in float32.

    Attributes:
        head: (..., D) to logits (..., V); None = the policy's, which is not trained.
    """

    def __init__(self, policy: Any, model: Any, *, cast_head: bool) -> None:
        self.adapted = policy if is_peft_model(policy) else None
        self.noisy = draws_noise(policy)
        self.head: Any = self._run_head
        if self.adapted is not None:
            self.adapter = ADAPTER if ADAPTER in policy.peft_config else None
            base = policy.get_base_model()
            self.backbone, self._head = base.base_model, base.get_output_embeddings()
            if not any(weight.requires_grad for weight in self._head.parameters()):
                self.head = None
        elif model is not None:
            self.backbone, self._head = model.base_model, model.get_output_embeddings()
        else:
            pair = copy.deepcopy((policy.base_model, policy.get_output_embeddings()))
            self.backbone, self._head = (part.requires_grad_(False).eval() for part in pair)
            if cast_head:
                del self._head.forward  # trl's, which reads the weights of the policy

    @torch.no_grad()
    def features(
        self, policy: Any, batch: TextBatch, heard: Sequence[Tensor], *, rows: int
    ) -> Tensor:
        """(B, T, D): what was overheard, or a pass of its own.

        Args:
            policy: the model that trains, wrapped or not.
            batch: B completions.
            heard: see `overheard`.
            rows: completions per pass.
        """
        if sum(map(len, heard)) == len(batch.completion_ids):
            length = batch.completion_ids.shape[1]
            return torch.cat([states[:, -length - 1 : -1] for states in heard])
        if self.adapted is None:
            return features(self.backbone, batch, rows=rows)
        with use_adapter(self.adapted, self.adapter), evaluating(policy):
            found: Tensor = policy(score=lambda backbone, _: features(backbone, batch, rows=rows))
        return found

    def speaks(self) -> bool:
        """Whether what the backbone runs now is the reference, without noise."""
        if self.noisy and self.backbone.training:
            return False
        if self.adapted is None:
            return True
        if self.adapter is not None:
            return bool(self.adapted.active_adapter == self.adapter)
        return not self.adapted.has_active_enabled_adapter

    def _run_head(self, states: Tensor) -> Tensor:
        """In the precision of its weights, which trl may have raised."""
        adapted = self.adapted is not None
        with use_adapter(self.adapted, self.adapter) if adapted else nullcontext():
            logits: Tensor = self._head(states.to(self._head.weight.dtype))
        return logits


@contextmanager
def overheard(reference: TextReference | None) -> Iterator[list[Tensor]]:
    """Collects the hidden states (N, L + T, D) of each pass of the reference that trl runs meanwhile."""
    heard: list[Tensor] = []
    if reference is None:
        yield heard
        return

    def keep(module: Any, args: Any, output: Any) -> None:
        if reference.speaks():
            heard.append(output.last_hidden_state)

    handle = reference.backbone.register_forward_hook(keep)
    try:
        yield heard
    finally:
        handle.remove()


def keep_adapter(model: Any) -> None:
    """Adds a frozen copy of an adapter that was trained before, as trl does for a KL term alone.

    Args:
        model: what the trainer is given: a name, a model, or one with an adapter.
    """
    if isinstance(model, str) or not is_peft_model(model) or ADAPTER in model.peft_config:
        return
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    trained = model.active_adapter
    weights = get_peft_model_state_dict(model, adapter_name=trained, save_embedding_layers=False)
    model.add_adapter(ADAPTER, model.peft_config[trained])
    set_peft_model_state_dict(model, weights, adapter_name=ADAPTER)


def draws_noise(model: Any) -> bool:
    """Whether a pass in training mode has dropout, by the settings of the model and its adapters."""
    settings = model.config.get_text_config().to_dict()
    for adapter in getattr(model, "peft_config", {}).values():
        settings |= {f"{adapter.peft_type} {key}": v for key, v in adapter.to_dict().items()}
    return any("drop" in name and bool(value) for name, value in settings.items())
