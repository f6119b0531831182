"""Token credit for language models, by trl. The public names are loaded at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .record import TextRollout, Watch
    from .settings import PUBLISHED_NEGATIVE, TextCreditConfig
    from .trainer import CreditGRPOTrainer

__all__ = ["PUBLISHED_NEGATIVE", "CreditGRPOTrainer", "TextCreditConfig", "TextRollout", "Watch"]

_FILES = {
    "PUBLISHED_NEGATIVE": "settings",
    "TextCreditConfig": "settings",
    "CreditGRPOTrainer": "trainer",
    "TextRollout": "record",
    "Watch": "record",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
