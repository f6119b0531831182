"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, complete or absent. Does
not decide what a training state is: the trainer hands over what must come back bit for bit.

    000100/model.safetensors   trainable tensors, or model/ when the model saves itself
    000100/state.safetensors   the tensors of optimizer, scheduler and extra state
    000100/state.json          everything else, size and SHA-256 of every file, and a SHA-256 of all that it says
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import RunError
from ..files import regular_file
from .atomic import cannot, write_atomic, write_folder_atomic
from .layout import numbered_folders, step_name

FORMAT, UNSIGNED = 2, 1  # what is written; an older one, whose state.json has no digest of its own
MODEL, MODEL_FOLDER = "model.safetensors", "model"
TENSORS, STATE = "state.safetensors", "state.json"
TREES = ("optimizer", "scheduler", "extra")  # of a state
MOST_STATE = 256 << 20  # bytes of a state.json
ELSE = "delete the checkpoint's folder to resume from an older one"


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found.

    Attributes:
        path: the checkpoint's folder.
        step: the state is the one after this step.
        model_state: the trainable tensors, or None when the model saved itself into `model_folder`.
        model_folder: see `model_state`.
        optimizer, scheduler: for `load_state_dict`; None if none was saved.
        extra: whatever else was saved.
    """

    path: Path
    step: int
    model_state: dict[str, Tensor] | None
    model_folder: Path | None
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    extra: dict[str, Any]


def save_checkpoint(
    folder: Path | str,
    step: int,
    *,
    model_state: Mapping[str, Tensor] | Callable[[Path], None],
    optimizer: torch.optim.Optimizer | Mapping[str, Any] | None = None,
    scheduler_state: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int | None = None,
) -> Path:
    """Writes the checkpoint of one step, replacing an older one of the same step.

    Args:
        folder: where the checkpoints are (`RunWriter.checkpoints`).
        step: the state is the one after this step.
        model_state: the trainable tensors, or a function that saves the model into the folder it is
            given.
        optimizer: the optimizer or its state_dict.
        scheduler_state: its state_dict.
        extra: RNG states, position in the prompts, ...: dicts, lists, tuples, tensors, numbers,
            strings, None.
        keep: how many of the latest checkpoints to keep; None = all.

    Returns:
        The checkpoint's folder.

    Raises:
        RunError: the disk refuses; nothing of the new checkpoint is left.
        TypeError: a value that neither JSON nor safetensors can hold.
    """
    target = Path(folder) / step_name(step)
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    trees = {"optimizer": optimizer, "scheduler": scheduler_state, "extra": extra or {}}
    packed = {name: _pack(tree, name, tensors) for name, tree in trees.items()}
    with write_folder_atomic(target) as draft:
        if callable(model_state):
            (draft / MODEL_FOLDER).mkdir()
            model_state(draft / MODEL_FOLDER)
        else:
            save_file(_own_storage(model_state), draft / MODEL)
        save_file(_own_storage(tensors), draft / TENSORS)
        written = {p.relative_to(draft).as_posix(): p for p in draft.rglob("*") if p.is_file()}
        sizes = {name: file.stat().st_size for name, file in written.items()}
        digests = {name: _digest(file) for name, file in written.items()}
        state = {"format": FORMAT, "step": step, "files": sizes, "sha256": digests, **packed}
        signed = {**state, "digest": _digest_of(state)}
        write_atomic(draft / STATE, json.dumps(signed, ensure_ascii=False).encode())
    if keep is not None:
        prune(folder, keep=keep)
    return target


def load_checkpoint(folder: Path | str, step: int | None = None) -> Checkpoint:
    """Reads the checkpoint of a step (None = the latest), all tensors on the CPU, and checks that every
    file of it is there and whole.

    Args:
        folder: where the checkpoints are.
        step: which one.

    Raises:
        RunError: there is none, or a file of it is missing, damaged or of a newer format; names
            the file.
    """
    step, state = check_checkpoint(folder, step)
    path = Path(folder) / step_name(step)
    for name, digest in state["sha256"].items():
        if _digest(path / name) != digest:
            raise RunError(f"{path / name}: damaged, not what was written; {ELSE}")
    tensors = _load(path / TENSORS)
    saved_itself = MODEL not in state["files"]
    try:
        trees = {name: _unpack(state[name], tensors) for name in TREES}
        if not isinstance(trees["extra"], dict):
            raise TypeError("extra")
        if not all(trees[name] is None or isinstance(trees[name], dict) for name in TREES):
            raise TypeError("trees")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RunError(f"{path / STATE}: damaged, not the state of a checkpoint; {ELSE}") from error
    return Checkpoint(
        path=path,
        step=step,
        model_state=None if saved_itself else _load(path / MODEL),
        model_folder=path / MODEL_FOLDER if saved_itself else None,
        **trees,
    )


def check_checkpoint(folder: Path | str, step: int | None = None) -> tuple[int, dict[str, Any]]:
    """The step of a checkpoint (None = the latest) and what its state.json holds, once every file of it is there and has
    its size. Loads no tensor.

    Raises:
        RunError: see `load_checkpoint`.
    """
    step = find_checkpoint(folder, step)
    path = Path(folder) / step_name(step)
    state = _read_state(path / STATE)
    if (written := state.get("step")) != step:
        raise RunError(
            f"{path / STATE}: of step {written!r:.20}, in the folder of step {step}; {ELSE}"
        )
    for name, size in state["files"].items():
        file = path / name
        found = file.stat().st_size if file.is_file() else "no"
        if found != size:
            raise RunError(f"{file}: {found} bytes instead of {size}; {ELSE}")
    return step, state


def find_checkpoint(folder: Path | str, step: int | None = None) -> int:
    """The step that is asked for, None = the latest, if there is a checkpoint of it.

    Raises:
        RunError: there is none.
    """
    known = list_checkpoints(folder)
    if not known:
        raise RunError(f"{folder}: there is no checkpoint here")
    step = known[-1] if step is None else step
    if step not in known:
        raise RunError(f"{folder}: there is no checkpoint of step {step}; there are {known}")
    return step


def list_checkpoints(folder: Path | str) -> list[int]:
    """The steps that have a complete checkpoint, ascending."""
    return numbered_folders(Path(folder))


def latest_checkpoint(folder: Path | str) -> Path | None:
    """The folder of the latest complete checkpoint, or None."""
    known = list_checkpoints(folder)
    return Path(folder) / step_name(known[-1]) if known else None


def prune(folder: Path | str, *, keep: int) -> list[int]:
    """Deletes all but the latest `keep` (at least 1) checkpoints; returns the steps that went."""
    assert keep >= 1, keep
    gone = list_checkpoints(folder)[:-keep]
    for step in gone:
        path = Path(folder) / step_name(step)
        doomed = path.with_name(f".{path.name}.pruned.tmp")
        try:
            path.rename(doomed)  # half deleted, it must not look like a checkpoint
            shutil.rmtree(doomed)
        except OSError as error:
            raise cannot("deleted", path, error) from error
    return gone


def _pack(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `value`, its tensors moved to `tensors`. JSON has only lists and text keys: tuples,
    dicts and tensors become {"tuple": [...]}, {"dict": [[key, value], ...]} and {"tensor":
    name}."""
    if isinstance(value, Tensor):
        while key in tensors:  # {"a.b": ..., "a": {"b": ...}}
            key += "'"
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {
            "dict": [[_scalar(k, key), _pack(v, f"{key}.{k}", tensors)] for k, v in value.items()]
        }
    if isinstance(value, list | tuple):
        packed = [_pack(entry, f"{key}.{place}", tensors) for place, entry in enumerate(value)]
        return packed if isinstance(value, list) else {"tuple": packed}
    return _scalar(value, key)


def _scalar(value: Any, key: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):  # JSON writes floats by repr: exact
        return value
    raise TypeError(f"a checkpoint cannot hold {key}: a {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "tuple":
        return tuple(_unpack(entry, tensors) for entry in inside)
    return {key: _unpack(entry, tensors) for key, entry in inside}


def _own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, no two sharing memory (tied
    ones are copied)."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        own[name] = plain
    return own


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise cannot("read", path, error) from error


def _read_state(path: Path) -> dict[str, Any]:
    damaged = f"{path}: damaged, not the state of a checkpoint; {ELSE}"
    try:
        with regular_file(path, MOST_STATE) as file:
            state: dict[str, Any] = json.loads(file.read())
        found = state["format"]
    except OSError as error:
        raise cannot("read", path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(damaged) from error
    if found not in (FORMAT, UNSIGNED):
        raise RunError(
            f"{path}: checkpoint format {found!r}; this t2i-credit reads {FORMAT}: update it"
        )
    if found == FORMAT and state.pop("digest", None) != _digest_of(state):
        raise RunError(f"{path}: damaged, not what was written; {ELSE}")
    state.setdefault("sha256", {})  # older checkpoints have none
    if not (isinstance(state.get("files"), dict) and isinstance(state["sha256"], dict)):
        raise RunError(damaged)
    if not state["sha256"].keys() <= state["files"].keys():
        raise RunError(damaged)
    if not all(map(_is_within, state["files"])):
        raise RunError(damaged)
    return state


def _is_within(name: str) -> bool:
    """Whether it is the name of a file inside of the checkpoint."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and 0 < len(name) < 300
    return plain and bool(parts) and parts[0] != "/" and ".." not in parts


def _digest_of(state: Mapping[str, Any]) -> str:
    """Of a state's values, whatever the order of its keys."""
    text = json.dumps(state, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise cannot("read", file, error) from error
