"""Per-token credit for RL of image-token generators: the public names, loaded on first use.

Imports nothing heavy: `import t2i_credit` and `t2i-credit --help` answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.launch import train
    from .api.models import load_model
    from .errors import ConfigError, ModelError, PromptError, RunError, TrainingError, UserError
    from .interfaces import ImageTokenModel, Prompt, RewardFn, Rollout
    from .rollout.sampling import sample_rollout

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ImageTokenModel",
    "ModelError",
    "Prompt",
    "PromptError",
    "RewardFn",
    "Rollout",
    "RunError",
    "TrainingError",
    "UserError",
    "__version__",
    "advantages",
    "credit",
    "geneval",
    "heatmap",
    "load_model",
    "losses",
    "sample_rollout",
    "train",
]

# Name -> module. No name may equal a module's (evaluate, compare): its import would replace it.
_NAMES = {
    "load_model": "api",
    "train": "api",
    "sample_rollout": "rollout.sampling",
    **dict.fromkeys(("ImageTokenModel", "Prompt", "RewardFn", "Rollout"), "interfaces"),
    **dict.fromkeys(
        ("ConfigError", "ModelError", "PromptError", "RunError", "TrainingError", "UserError"),
        "errors",
    ),
}
_MODULES = {"advantages", "credit", "geneval", "heatmap", "losses"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        found = getattr(import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = found
        return found
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
