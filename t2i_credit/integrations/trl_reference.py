"""The frozen reference that a text credit compares the policy with: which weights it has, and its pass. Trains nothing.

Shapes as in trl_scoring.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from trl.trainer.utils import use_adapter

from .trl_scoring import TextBatch, evaluating, features

ADAPTER = "ref"  # trl's name of the copy of an adapter that was trained before


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
        if self.adapted is None:
            return self._in_its_precision(states)
        with use_adapter(self.adapted, self.adapter):
            return self._in_its_precision(states)

    def _in_its_precision(self, states: Tensor) -> Tensor:
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
