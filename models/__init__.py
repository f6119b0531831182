"""Imported as `t2i_credit.models`, from this top-level folder: image-token generators, and how a name becomes one.

A model folder says what it is in its config.json (`model_type`). Heavy imports happen when a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ModelError

EMBEDDED = Path(__file__).parent / "embedded"


def _load_embedded(folder: Path) -> Any:
    from .embedded_model import EmbeddedModel

    return EmbeddedModel.from_pretrained(folder)


MODELS: dict[str, Callable[[Path], Any]] = {"t2i_credit_embedded": _load_embedded}


def embedded_names() -> list[str]:
    """The generators that come with the package."""
    # a name with a dot in front is a folder that is still being written
    return sorted(p.parent.name for p in EMBEDDED.glob("[!.]*/config.json"))


def load_pretrained(name_or_path: str) -> Any:
    """Loads an embedded generator by name, or a model folder.

    Raises:
        ModelError: there is no such model, its architecture is not supported, or a file is missing or damaged.
    """
    folder = EMBEDDED / name_or_path if name_or_path in embedded_names() else Path(name_or_path)
    if not folder.is_dir():
        known = ", ".join(embedded_names()) or "none"
        raise ModelError(f"model {name_or_path!r}: no such folder; embedded models: {known}")
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model folder has one") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a readable JSON object: {error}") from None
    if kind not in MODELS:
        supported = ", ".join(MODELS)
        raise ModelError(f"{path}: model_type {kind!r} is not supported; supported: {supported}")
    return MODELS[kind](folder)
