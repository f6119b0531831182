"""Which weights of a model are trained: all of its own choice, some modules, or a LoRA adapter (through peft); and what a
trained one is compared with. Trains nothing.

An adapter lies inside `model.language_model`. Switched off, the model is its own frozen reference.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..config.sections import TuneConfig
from ..errors import ConfigError, RunError
from ..interfaces import Condition, Reference
from ..models.adapter import TRAINED_BEFORE, remember_trained
from ..models.files import require_finite
from .processes import part_like


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Changes the number format of the parameters, and of nothing else: rotary frequencies are buffers, and in
    bfloat16 the positions of late tokens would be wrong."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def choose_trained(model: Any, settings: TuneConfig, *, seed: int) -> None:
    """Freezes what is not trained, and adds the adapter if there is to be one.

    Args:
        model: as it was loaded; what it has frozen itself stays frozen.
        settings: the section `tune`.
        seed: of the adapter's first weights.

    Raises:
        ConfigError: a name matches nothing, or the model cannot do it; says what is near.
    """
    if settings.recompute:
        if not hasattr(model, "recompute"):
            kind = type(model).__name__
            raise ConfigError(
                f"tune.recompute: true is not allowed; {kind} cannot recompute layers"
            )
        model.recompute = True
    if settings.lora_rank:
        _add_adapter(model, settings, seed)
    elif settings.modules is not None:
        _train_only(model, settings.modules)


def _train_only(model: nn.Module, names: Iterable[str]) -> None:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen: set[str] = set()
    for wanted in names:
        found = {name for name in trained if f".{wanted}." in f".{name}."}
        if not found:
            parts = {part for name in trained for part in name.split(".")[:-1]}
            raise ConfigError(_nothing("tune.modules", wanted, parts, "is trained by this model"))
        chosen |= found
    for name, parameter in trained.items():
        parameter.requires_grad_(name in chosen)


def _add_adapter(model: Any, settings: TuneConfig, seed: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    backbone = getattr(model, "language_model", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f"tune.lora_rank: {settings.lora_rank} is not allowed; {type(model).__name__} has no language_model"
        )
    known = {
        name.rpartition(".")[2]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    for wanted in settings.lora_targets or ():
        if wanted not in known:
            what = "is a linear layer of the transformer"
            raise ConfigError(_nothing("tune.lora_targets", wanted, known, what))
    remember_trained(model)
    model.requires_grad_(False)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=sorted(settings.lora_targets or known),
        lora_dropout=0.0,  # dropout would make training disagree with sampling
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone)
    for parameter in backbone.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()  # small steps would be rounded away
    backbone.eval()


def _nothing(key: str, wanted: str, known: Iterable[str], what: str) -> str:
    """The message for a name that matches nothing."""
    names = sorted(known)
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or names[:8]
    return f"{key}: nothing called {wanted!r} {what}; the nearest names are {', '.join(near)}"


def adapter_layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers that hold a LoRA adapter, by name; empty without one."""
    return {name: m for name, m in model.named_modules() if hasattr(m, "lora_A")}


def merge_adapter(model: nn.Module) -> None:
    """Adds the adapter to the weights and removes it; without one, nothing happens. What was trained before the adapter came
    can be trained again.

    Weights with an adapter become float32: in bfloat16 most of what a short training changed would be rounded away.
    """
    for name, layer in adapter_layers(model).items():
        base = layer.get_base_layer()
        base.to(torch.float32)
        layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())
    for module in model.modules():
        module.__dict__.pop("peft_config", None)
    for name in model.__dict__.pop(TRAINED_BEFORE, ()):
        model.get_parameter(name).requires_grad_(True)


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before training."""
    layers = adapter_layers(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class AdapterOff:
    """The frozen reference that costs no memory: a model whose adapter is switched off for each call."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, condition: Condition, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
        with adapter_off(self.model):
            return dict(self.model(condition, tokens, **options))

    def reference(self, condition: Condition, tokens: Tensor) -> Reference:
        with adapter_off(self.model):
            return cast(Reference, self.model.reference(condition, tokens))

    def to(self, device: torch.device) -> AdapterOff:
        """Goes where its model goes."""
        return self


def frozen_reference(model: Any) -> Any:
    """What the trained model is compared with: itself without its adapter, or a copy of its trained tensors that shares
    the frozen ones."""
    if adapter_layers(model):
        return AdapterOff(model)
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False)


class MovingAverage:
    """An exponential moving average of the trained tensors, float32.

    Attributes:
        state: name to tensor.
    """

    def __init__(self, trained: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: p.detach().float().clone() for name, p in trained.items()}

    @torch.no_grad()
    def update(self, trained: Mapping[str, Tensor]) -> None:
        """state = decay * state + (1 - decay) * trained."""
        for name, parameter in trained.items():
            self.state[name].lerp_(parameter.detach().float(), 1 - self.decay)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a saved state."""
        for name, tensor in state.items():
            self.state[name].copy_(part_like(tensor, self.state[name]))


def load_trained(model: Any, state: Mapping[str, Tensor], where: str) -> None:
    """Puts a checkpoint's trained tensors into the model.

    Raises:
        RunError: they do not belong to this model.
        ModelError: one is not finite.
    """
    if not (isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())):
        raise RunError(f"{where}: damaged, holds no weights")
    require_finite(state.items(), where)
    known = dict(model.named_parameters())
    for name, tensor in state.items():
        if name not in known or known[name].shape != tensor.shape:
            raise RunError(f"{where}: {name} does not fit the model of this run's configuration")
    parts = {name: part_like(tensor, known[name]) for name, tensor in state.items()}
    model.load_state_dict(parts, strict=False)


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """SHA-256 of every parameter's shape and first values, an adapter's apart: models of other weights have another.

    Args:
        model: on one device, not shared out yet.
    """
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            first = parameter.detach().flatten()[:64].float().cpu()
            found.update(f"{tuple(parameter.shape)} {first.tolist()}".encode())
    return found.hexdigest()
