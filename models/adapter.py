"""A LoRA adapter that peft saved elsewhere, on the generator that it was made for. Trains nothing, merges nothing.

Its folder holds adapter_config.json, which names the base, and adapter_model.safetensors. It may have been made for the
whole transformers model or for a part of it, such as its language model: the tensors' names tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from ..errors import ModelError, one_line
from .bounds import read_object
from .files import load_part, require_whole

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TRAINED_BEFORE = "_trained_before_adapter"
_WRAPPED = "base_model.model."  # what peft puts before the names of a model that it wraps


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The name of the generator that an adapter was made for.

    Raises:
        ModelError: it is no LoRA adapter with weights in safetensors, or does not say.
    """
    config = read_object(folder / CONFIG)
    if (kind := config.get("peft_type")) != "LORA":
        raise ModelError(f"{folder / CONFIG}: peft_type: {kind!r} is not supported; LORA is")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder / WEIGHTS}: missing; an adapter has one")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{folder / CONFIG}: base_model_name_or_path: {base!r} is not allowed; the name of a model is"
        )
    if os.path.isdir(base) and is_adapter(Path(base)):  # perhaps this one, without end
        raise ModelError(f"{folder / CONFIG}: base_model_name_or_path: {base} is an adapter itself")
    return base


def add_adapter(model: Any, folder: Path) -> Any:
    """Puts an adapter on a generator, which is changed, as a run's own adapter would be; it is not trained further.

    Raises:
        ModelError: the adapter is damaged, or does not fit the generator.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    path = folder / WEIGHTS
    require_whole(path)
    state = {name.removeprefix(_WRAPPED): tensor for name, tensor in load_file(path).items()}
    if others := sorted(name for name in state if ".lora_" not in name):
        raise ModelError(f"{path}: {others[0]} is no part of a LoRA adapter of linear layers")
    layers = sorted({name.partition(".lora_")[0] for name in state})
    part = _holder(model, layers)
    if part is None:
        raise ModelError(
            f"{path}: no layer {layers[0] if layers else 'at all'} in {type(model).__name__}: the adapter was made for "
            "another model"
        )
    config = load_part("adapter", folder, LoraConfig.from_pretrained)
    config.target_modules, config.lora_dropout, config.inference_mode = set(layers), 0.0, True
    remember_trained(model)
    try:
        inject_adapter_in_model(config, part)
        report = set_peft_model_state_dict(part, state)
    except (ValueError, RuntimeError) as error:
        del model.__dict__[TRAINED_BEFORE]
        reason = one_line(error)[:200]
        raise ModelError(f"{path}: does not fit {type(model).__name__}: {reason}") from None
    if report.unexpected_keys:
        raise ModelError(f"{path}: {report.unexpected_keys[0]} has no place in the adapter")
    model.requires_grad_(False)
    return model


def remember_trained(model: nn.Module) -> None:
    """Keeps the names of what is trained now, for whoever merges the adapter that comes."""
    trained = tuple(name for name, p in model.named_parameters() if p.requires_grad)
    model.__dict__.setdefault(TRAINED_BEFORE, trained)


def _holder(model: nn.Module, layers: Iterable[str]) -> nn.Module | None:
    """The part of a model, the whole first, that has linear layers of all these names."""
    for _, part in model.named_modules():
        known = {name for name, module in part.named_modules() if isinstance(module, nn.Linear)}
        if layers and known.issuperset(layers):
            return part
    return None
