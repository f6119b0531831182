"""What writer and reader of the run folder agree on: its format, the names in it, masks as JSON. Opens no file.

Names of steps and checkpoints have six digits. A mask is written as the lengths of its runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RunError
from .atomic import cannot

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


def encode_mask(mask: Tensor | np.ndarray) -> dict[str, list[int]]:
    """A mask (h, w) as JSON: lengths of its runs in raster order, the first one of False (possibly
    0)."""
    grid = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask).astype(bool)
    padded = np.concatenate(([False], grid.ravel(), [not grid.ravel()[-1]]))
    return {
        "size": list(grid.shape),
        "counts": np.diff(np.flatnonzero(padded[1:] != padded[:-1]), prepend=0).tolist(),
    }


def decode_mask(encoded: Mapping[str, Sequence[int]]) -> np.ndarray:
    """The bool mask (h, w) of `encode_mask`."""
    counts = np.asarray(encoded["counts"])
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(tuple(encoded["size"]))


def step_name(step: int) -> str:
    """Folder name of a step, six digits or more: names sort like numbers."""
    return f"{step:06d}"


def numbered_folders(folder: Path) -> list[int]:
    """The steps that have a complete folder inside `folder`, ascending; [] when there is no
    `folder`."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(
            int(entry.name)
            for entry in entries
            if entry.name.isdecimal()
            and entry.name == step_name(int(entry.name))
            and entry.is_dir()
        )
    return []


def evaluation_path(folder: Path, name: str) -> Path:
    """Where the scores of an evaluation lie in a folder of evaluations; RunError for a name that leaves the folder."""
    if not name or name.startswith(".") or Path(name).name != name:
        raise RunError(f"evaluation name {name!r}: must be a plain file name, without slashes")
    return folder / f"{name}.json"


def contained(path: Path, within: Path | None) -> Path:
    """The path, unless it leads out of `within`."""
    if within is None:
        return path
    try:
        inside = path.resolve().is_relative_to(within)
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself; a name with a NUL
        raise cannot("read", path, error) from error
    if not inside:
        raise RunError(f"{path}: leads out of {within}, so it is left alone")
    return path


def require_within(folder: Path, within: Path | None) -> None:
    """Raises RunError where a folder or anything in it leads out of `within`; None = no such limit."""
    for path in [folder, *folder.rglob("*")]:
        contained(path, within)
