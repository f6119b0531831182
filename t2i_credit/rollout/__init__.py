"""From prompts to sampled token grids with their log-probs. The public name is loaded at first use: `images` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sampling import sample_rollout

__all__ = ["sample_rollout"]

_FILES = {
    "sample_rollout": "sampling",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
