"""Whether a recorded step holds what a run records. Asked where a step is read, so that nothing after has to doubt it. Reads
no file itself.

Shapes: N kept samples of a step, T = H*W image tokens in raster order, pictures and masks h x w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load

from ..errors import RunError
from .status import whole

NEEDED = ("tokens", "logprobs", "credit", "token_advantages")  # without which nothing is shown
MOST_HEADER = 64 << 10  # bytes of names and shapes of a step's arrays: a dozen arrays have 2,000
MOST_TOKENS = 1 << 16  # of a sample
_LARGEST = float(np.finfo(np.float32).max)  # every number was one of these when it was written


def check_record(record: Any) -> None:
    """Refuses a step whose arrays and samples do not belong together, or are not what a run records.

    Args:
        record: a `StepRecord`.

    Raises:
        RunError: one line that says what is missing or wrong.
    """
    if not record.samples:
        raise RunError(f"{record.folder}: no sample was recorded")
    path = record.folder / "samples.json"
    if not all(whole(size) and size for size in (*record.grid, record.codebook_size)):
        raise RunError(f"{path}: grid or codebook_size: not sizes")
    if record.grid[0] * record.grid[1] > MOST_TOKENS:
        raise RunError(f"{path}: grid: {record.grid} has too many tokens")
    _check_arrays(record)
    for place, sample in enumerate(record.samples):
        if not isinstance(sample, dict):
            raise RunError(f"{path}, sample {place}: not an object")
        for name, fits in _SAMPLE.items():
            if name not in sample and name not in _OPTIONAL:
                raise RunError(f"{path}, sample {place}: {name}: missing")
            if not fits(sample.get(name)):
                raise RunError(f"{path}, sample {place}: {name}: not what a run records")


def load_few(content: bytes) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a .safetensors file, as a step has them: a few.

    Raises:
        ValueError: it names too many, which would cost many times their bytes.
        SafetensorError: it is damaged.
    """
    header = int.from_bytes(content[:8], "little")
    if MOST_HEADER < header <= len(content):
        problem = f"it has {header:,} bytes of names, and at most {MOST_HEADER:,} are read"
        raise ValueError(problem)
    return dict(load(content))


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number; null stands for what was not finite."""
    if isinstance(value, float):
        return not math.isfinite(value) or abs(value) <= _LARGEST
    return value is None or (isinstance(value, int) and abs(value) <= 2**53)


def _check_arrays(record: Any) -> None:
    if missing := [name for name in NEEDED if name not in record.arrays]:
        raise RunError(f"{record.folder}: {', '.join(missing)} missing in arrays.safetensors")
    shape = (len(record.samples), record.grid[0] * record.grid[1])
    for name, array in record.arrays.items():
        if array.shape != shape:
            raise RunError(
                f"{record.folder}: {name} has shape {array.shape}, samples.json asks for {shape}"
            )
        if array.dtype.kind not in ("iu" if name == "tokens" else "f") or array.dtype.itemsize > 4:
            raise RunError(f"{record.folder}: {name} has numbers of type {array.dtype}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_parts(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and all(map(is_number, value.values())))


def _are_objects(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_object, value)))


def _is_object(entry: object) -> bool:
    """Whether it is one object of a picture: {"name", "box", "mask", ...}, each of which may be missing."""
    if not isinstance(entry, Mapping):
        return False
    box, mask = entry.get("box"), entry.get("mask")
    return (box is None or _is_box(box)) and (mask is None or _is_mask(mask))


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(is_number(side) and side is not None and math.isfinite(side) for side in value)
    )


def _is_mask(value: object) -> bool:
    """Whether its runs fill its size; see run_folder/layout.py."""
    if not isinstance(value, Mapping):
        return False
    size: Any = value.get("size")
    counts: Any = value.get("counts")
    if not all(isinstance(part, list) and all(map(whole, part)) for part in (size, counts)):
        return False
    return len(size) == 2 and sum(counts) == size[0] * size[1]


# of each sample, as run_folder/writer.py writes them
_SAMPLE: dict[str, Callable[[Any], bool]] = {
    "image": _is_text,
    "prompt": _is_text,
    "negative": lambda value: value is None or _is_text(value),
    "group": whole,
    "reward": is_number,
    "advantage": is_number,
    "gold": lambda value: isinstance(value, bool),
    "reward_parts": _are_parts,
    "objects": _are_objects,
}
_OPTIONAL = ("reward_parts", "objects")
