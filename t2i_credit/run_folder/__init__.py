"""The run folder: one writer, one reader, and nobody else builds its paths. The writer is loaded at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reader import RunReader, StepRecord, list_runs
    from .status import RunStatus
    from .writer import RunWriter, write_evaluation

__all__ = ["RunReader", "RunStatus", "RunWriter", "StepRecord", "list_runs", "write_evaluation"]

_FILES = {
    "RunWriter": "writer",
    "write_evaluation": "writer",
    "RunReader": "reader",
    "StepRecord": "reader",
    "list_runs": "reader",
    "RunStatus": "status",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
