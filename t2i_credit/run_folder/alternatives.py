"""The likeliest other codes of a recorded step: how they lie in its folder, written and read. Older runs have none.

    alternatives.safetensors      codes (N, T, K) int32, -1 = none; logprobs (N, T, K) float32
    0000-alternatives.png, ...    of each sample K pictures of H x W patches, below one another: what each token would show

They are read when they are asked for: what is damaged here costs nothing else of the step.
Shapes: N kept samples of a step, T = H*W image tokens, K alternatives of each, patches of S x S pixels.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors.numpy import save as save_arrays

from ..errors import RunError
from .atomic import write_atomic, write_png
from .checks import load_few
from .reader import MOST_ARRAYS, MOST_PIXELS, StepRecord, read_bounded, read_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "alternatives.safetensors"
MOST, MOST_SIDE = 8, 32  # alternatives of a token; pixels of a patch's side


@dataclass(frozen=True)
class Alternatives:
    """The likeliest other codes of one sample.

    Attributes:
        codes: (T, K) int32, the likeliest first; -1 = none, as in a golden reference.
        logprobs: (T, K) float32, of the guided, tempered distribution before truncation, as `guided_logprobs`.
        pictures: (K*H*S, W*S) pixels: what each token would show with its k-th code, in the k-th of K pictures.
        side: S.
    """

    codes: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    pictures: Image.Image
    side: int


def most_side(grid: tuple[int, int], count: int) -> int:
    """Pixels of a patch's side at most, so that the picture of a sample's alternatives is one that is read."""
    return max(1, min(MOST_SIDE, math.isqrt(MOST_PIXELS // (count * grid[0] * grid[1]))))


def has_alternatives(record: StepRecord) -> bool:
    """Whether the step recorded any."""
    return os.path.lexists(record.folder / FILE)


def write_alternatives(
    folder: Path, codes: NDArray[Any], logprobs: NDArray[Any], pictures: NDArray[np.uint8]
) -> None:
    """Adds them to the folder of a step that is being written.

    Args:
        folder: of the step.
        codes, logprobs: (N, T, K).
        pictures: (N, K*H*S, W*S, 3).

    Raises:
        RunError: the disk refuses.
    """
    arrays = {"codes": codes.astype(np.int32), "logprobs": logprobs.astype(np.float32)}
    write_atomic(folder / FILE, save_arrays(arrays))
    for place, picture in enumerate(pictures):
        write_png(folder / _picture_name(place), Image.fromarray(picture))


def read_codes(record: StepRecord) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Codes and log-probabilities (N, T, K) of all samples; None where the step recorded none.

    Raises:
        RunError: they cannot be read, or do not belong to this step.
    """
    if not has_alternatives(record):
        return None
    path = record.folder / FILE
    arrays = read_bounded(path, load_few, MOST_ARRAYS, record.within)
    codes, logprobs = (_checked(record, path, arrays, name) for name in ("codes", "logprobs"))
    if codes.shape != logprobs.shape:
        raise RunError(
            f"{path}: codes have shape {codes.shape}, their logprobs {logprobs.shape}; one each is needed"
        )
    if codes.min() < -1 or codes.max() >= record.codebook_size:
        raise RunError(f"{path}: codes: not all below {record.codebook_size}")
    return codes, logprobs


def read_alternatives(
    record: StepRecord, place: int, known: tuple[NDArray[Any], NDArray[Any]] | None = None
) -> Alternatives | None:
    """Those of the sample at `place` (0..N-1); None where the step recorded none.

    Args:
        record: the step.
        place: see above.
        known: what `read_codes` found; None = it is asked.

    Raises:
        RunError: they cannot be read, or do not belong to this step.
    """
    found = known or read_codes(record)
    if found is None:
        return None
    codes, logprobs = found
    picture_path = record.folder / _picture_name(place)
    pictures = read_picture(picture_path, record.within)
    (height, width), count = record.grid, codes.shape[2]
    side = pictures.width // width
    if not 1 <= side <= MOST_SIDE or pictures.size != (width * side, count * height * side):
        size = f"{pictures.width} x {pictures.height}"
        raise RunError(
            f"{picture_path}: has {size} pixels, not {count} times {width} x {height} patches"
        )
    return Alternatives(codes[place].copy(), logprobs[place].copy(), pictures, side)


def _checked(record: StepRecord, path: Path, arrays: Any, name: str) -> NDArray[Any]:
    """An array of alternatives, of the step's samples and tokens."""
    if name not in arrays:
        raise RunError(f"{path}: {name} missing")
    array: NDArray[Any] = arrays[name]
    many = (len(record.samples), record.grid[0] * record.grid[1])
    if array.ndim != 3 or array.shape[:2] != many or not 1 <= array.shape[2] <= MOST:
        raise RunError(
            f"{path}: {name} has shape {array.shape}, samples.json asks for {(*many, f'1 to {MOST}')}"
        )
    if array.dtype not in ((np.int32,) if name == "codes" else (np.float32,)):
        raise RunError(f"{path}: {name} has numbers of type {array.dtype}")
    return array


def _picture_name(place: int) -> str:
    return f"{place:04d}-alternatives.png"
