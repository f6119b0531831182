"""What a configuration says of local paths, made absolute, so that a run can be opened from any folder. Loads nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..models import TEXT_MODELS, embedded_names

MODEL_FILES = ("config.json", "open_clip_config.json")  # one of them is in a folder of a model


def anchored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration with absolute paths: of model, prompt file and run, and of whatever rewards read.

    What is there is a path. A hub id, an embedded name, a function and what is not there stay as they are.

    Args:
        tree: section -> key -> value, of images or of text.
    """
    found = {name: dict(keys) if isinstance(keys, Mapping) else keys for name, keys in tree.items()}
    for section, key, change in (
        ("model", "name", _model),
        ("prompts", "source", _source),
        ("critic", "file", os.path.abspath),
        ("train", "out", os.path.abspath),
    ):
        keys = found.get(section)
        if isinstance(keys, dict) and isinstance(keys.get(key), str):
            keys[key] = change(keys[key])
    if "reward" in found:
        found["reward"] = _of_reward(found["reward"])
    return found


def _model(name: str) -> str:
    """A model or a run, of which a step may be named: runs/x@100."""
    path, at, step = name.rpartition("@")
    path, at, step = (path, at, step) if path and step.isdecimal() else (name, "", "")
    run = os.path.isfile(os.path.join(path, "config.yaml"))
    return os.path.abspath(path) + at + step if run or _source(path) != path else name


def _source(name: str) -> str:
    """A file or folder, unless an embedded model or world has its name."""
    known = name in (*embedded_names(), *TEXT_MODELS) or not os.path.exists(name)
    return name if known else os.path.abspath(name)


def _of_reward(value: Any) -> Any:
    """The parameters of rewards, of which nobody but a reward knows which are paths."""
    if isinstance(value, Mapping):
        return {key: each if key == "detector" else _of_reward(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_of_reward(each) for each in value]
    return os.path.abspath(value) if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    """A file, a folder whose name has a slash, or that of a model which no other thing is called."""
    if os.path.isfile(text) or not os.path.isdir(text) or os.sep in text:
        return os.path.exists(text)
    if not any(os.path.isfile(os.path.join(text, file)) for file in MODEL_FILES):
        return False
    from open_clip import list_models

    return text not in ("embedded", *list_models())
