"""The files of a model folder, read so that whatever is wrong with one is a line that names it. Builds no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Raises ModelError unless the folder holds all these files."""
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing; a model folder holds {', '.join(names)}")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ModelError(f"{path}: damaged, not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds a {type(found).__name__}, not an object")
    return found


def require_values(path: Path, wanted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The object in a JSON file whose values at some keys are known.

    Args:
        wanted: key to value.
        source: who says so, for the message.

    Raises:
        ModelError: a value is another one, or missing.
    """
    found = read_object(path)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ModelError(
                f"{path}: {key}: {found.get(key)!r} does not fit {source}, which says {value!r}"
            )
    return found


def load_tensors(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Puts the tensors of a safetensors file into a module; every one that it has is in the file, and fits.

    Args:
        module: its parameters keep their own type.
        path: the file; tensors that the module does not know are ignored.
        prefix: load only what begins with it.

    Raises:
        ModelError: the file cannot be read, or a tensor is missing or has another shape.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: damaged: {' '.join(str(error).split())}") from None
    wanted: dict[str, Tensor] = module.state_dict()
    wanted = {name: tensor for name, tensor in wanted.items() if name.startswith(prefix)}
    for name, tensor in wanted.items():
        if name not in tensors:
            raise ModelError(f"{path}: the tensor {name} is missing")
        if tensors[name].shape != tensor.shape:
            found, needed = tuple(tensors[name].shape), tuple(tensor.shape)
            raise ModelError(f"{path}: {name} has shape {found}; the model needs {needed}")
    module.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
