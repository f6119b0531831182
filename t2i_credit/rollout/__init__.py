"""From prompts to sampled token grids with their log-probs. The public name is loaded at first use: `images` needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sampling import sample_rollout

__all__ = ["sample_rollout"]


def __getattr__(name: str) -> Any:
    if name != "sample_rollout":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sampling import sample_rollout

    return sample_rollout
