"""What predicts the value of a prefix: a small head on features of a transformer, its own adapter or its own copy. Trains nothing.

Shapes: B samples, T image tokens, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...config.sections import CriticConfig
from ...errors import ConfigError
from ...interfaces import Condition
from ..tune import adapter_off


class ValueNetwork(nn.Module):
    """f(prefix), a logit beside the group baseline's: exactly 0 at the start, because the last layer begins with zeros.

    Args:
        model: the generator, without accelerate's wrapping; an attribute and no submodule, so that its weights are
            neither trained nor saved here.
        settings: the section `critic`. kind head: on the policy's features as they are; lora: on those of the frozen
            base with an adapter of its own, a second model is not held; copy: on those of a trained copy.
        seed: of the first weights.

    Raises:
        ConfigError: the model does not tell features of prefixes.
    """

    def __init__(self, model: Any, settings: CriticConfig, *, seed: int) -> None:
        super().__init__()
        require_features(model)
        self._model = (model,)
        self.kind = settings.kind
        hidden = model.language_model.config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.norm = nn.LayerNorm(hidden)
            self.inner = nn.Linear(hidden, settings.width)
            self.outer = nn.Linear(settings.width, 1)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)
            self.adapters = nn.ModuleDict()
            if self.kind == "lora":
                for name, layer in _linear_layers(model).items():
                    self.adapters[name] = _Adapter(layer, settings.rank)
        self.backbone = None
        if self.kind == "copy":
            frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
            self.backbone = copy.deepcopy(model, frozen)
        self.to(model.device)

    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained and saved, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What must hold during a pass and its backward pass, in which layers may be recomputed: of the kind lora, the
        policy's adapter is off and the critic's own is on."""
        if self.kind != "lora":
            yield
            return
        (model,) = self._model
        layers = _linear_layers(model)
        hooks = [
            layers[name].register_forward_hook(adapter) for name, adapter in self.adapters.items()
        ]
        try:
            with adapter_off(model):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, condition: Condition, tokens: Tensor) -> Tensor:
        """(B, T + 1) float32, inside of `at_work`."""
        model = self.backbone or self._model[0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.kind != "head"):
            features = model.prefix_features(condition, tokens)
        with torch.autocast(features.device.type, enabled=False):
            inner = nn.functional.gelu(self.inner(self.norm(features.float())))
            found: Tensor = self.outer(inner)[..., 0]
        return found


class _Adapter(nn.Module):
    """A LoRA adapter as a forward hook of a linear layer: adds B A x, and B begins with zeros."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added: Tensor = self.up(self.down(inputs[0].to(self.down.weight.dtype)))
        return output + added.to(output.dtype)


def require_features(model: Any) -> None:
    """Raises ConfigError where the model does not tell features of prefixes."""
    if not hasattr(model, "prefix_features"):
        raise ConfigError(
            f"credit.name: 'value' is not allowed; {type(model).__name__} has no prefix_features"
        )


def _linear_layers(model: Any) -> dict[str, nn.Linear]:
    """The transformer's linear layers but those of adapters, by a name that a ModuleDict takes."""
    return {
        name.replace(".base_layer", "").replace(".", "-"): layer
        for name, layer in model.language_model.named_modules()
        if isinstance(layer, nn.Linear) and "lora_" not in name
    }
