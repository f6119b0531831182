"""Models, training and their parts by name: the public names, loaded at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .launch import run_training, train
    from .models import load_model
    from .objects import describe_world, load_detector
    from .parts import build_reward, load_prompt_set, prepare

__all__ = [
    "build_reward",
    "describe_world",
    "load_detector",
    "load_model",
    "load_prompt_set",
    "prepare",
    "run_training",
    "train",
]

_FILES = {
    "load_model": "models",
    "train": "launch",
    "run_training": "launch",
    "build_reward": "parts",
    "load_prompt_set": "parts",
    "prepare": "parts",
    "describe_world": "objects",
    "load_detector": "objects",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
