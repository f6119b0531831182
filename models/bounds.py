"""How much the settings of a model folder may ask for, before anything is built from them. Reads headers, no weights.

Everything beyond is a ModelError that names the file and the key or the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from ..errors import ModelError, UserError, one_line, ran_out
from ..files import read_json

MOST_LAYERS, MOST_WIDE, MOST_SIZE = 1000, 1 << 20, 1 << 24  # of a model's configuration
MOST_LEVELS, MOST_BLOCKS = (
    16,
    128,
)  # of an image tokenizer: each halves a picture; and in each of them
WEIGHTS_PER_BYTE = 2  # of a file of weights, at most: nobody keeps them in less than 4 bits
ATTENTION = ("eager", "sdpa", "flex_attention")  # that no code from elsewhere is fetched for
FLOATS = ("F32", "F16", "BF16", "F64")  # safetensors' names
# of a tokenizer.json but its vocabulary: values and letters of a part, growth of a text
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MOST_VALUES, MOST_LETTERS, MOST_GROWTH = 2000, 4096, 64
CHARSMAP = "precompiled_charsmap"  # sentencepiece's table, of some 300,000 letters


@contextmanager
def named_errors(where: Path, what: str) -> Iterator[None]:
    """Whatever a library says against a part of a model becomes one ModelError that names the file or folder."""
    try:
        yield
    except (
        Exception
    ) as error:  # transformers, diffusers, tokenizers and safetensors raise all kinds
        if ran_out(error) or isinstance(error, ModelError):  # which says nothing against the files
            raise
        reason = one_line(error)[:300]
        if not isinstance(error, (OSError, UserError, ValueError, RuntimeError)):
            reason = f"{type(error).__name__}: {reason}"
        raise ModelError(f"{where}: the {what} cannot be read: {reason}") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        found = read_json(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ModelError(f"{path}: damaged, not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds a {type(found).__name__}, not an object")
    return found


def require_sizes(path: Path, values: Mapping[str, Any] | None = None) -> None:
    """Raises ModelError for a configuration whose numbers no model has: building it would take for ever, or all memory; and
    for one whose attention is code from elsewhere, which is not run.

    Args:
        path: a JSON file.
        values: what was read from it, where it is another file.
    """

    def most_of(key: str) -> int:
        if key.endswith("_size"):
            return MOST_WIDE
        if "block" in key or key == "vq_layers":
            return MOST_BLOCKS
        return MOST_LAYERS if "layer" in key else MOST_SIZE

    def walk(value: Any, at: str) -> None:
        key = at.rpartition(".")[2]
        if isinstance(value, Mapping):
            for name, entry in value.items():
                walk(entry, f"{at}.{name}" if at else str(name))
        elif isinstance(value, list):
            levels = "mult" in key or "channels" in key
            most = MOST_LEVELS if levels else MOST_LAYERS
            if len(value) > most:
                raise ModelError(f"{path}: {at}: {len(value)} entries; at most {most:,}")
            for entry in value:
                walk(entry, at)
        elif isinstance(value, str) and "attn_implementation" in at:
            flash = value.startswith("flash_attention") and find_spec("flash_attn") is not None
            if value not in ATTENTION and not flash:
                allowed = f"which is not run; allowed: {', '.join(ATTENTION)}"
                raise ModelError(f"{path}: {at}: {value!r:.80} is code from the hub, {allowed}")
        elif isinstance(value, int) and abs(value) > (most := most_of(key)):
            raise ModelError(f"{path}: {at}: {value:.6g} is not allowed; at most {most:,}")

    walk(read_object(path) if values is None else values, "")


def require_described(path: Path, build: Callable[[], nn.Module], files: list[Path]) -> None:
    """Raises ModelError unless the weights of a model fit into its files, or are few; nothing is allocated.

    Args:
        path: the configuration.
        build: makes the model.
        files: its weights.
    """
    room = WEIGHTS_PER_BYTE * sum(file.stat().st_size for file in files)
    with named_errors(path, "model"), torch.device("meta"):
        model = build()
    described = sum(tensor.numel() for tensor in model.state_dict().values())
    if described > max(room, 1 << 16):
        name, largest = max(model.state_dict().items(), key=lambda item: item[1].numel())
        raise ModelError(
            f"{path}: describes {described:,} weights ({name}: {' x '.join(map(str, largest.shape))}); its files have "
            f"{room // WEIGHTS_PER_BYTE:,} bytes"
        )


def require_shapes(path: Path, module: nn.Module, prefix: str = "") -> None:
    """Raises ModelError unless a safetensors file has every tensor of a module, floats of the same shape.

    Args:
        module: may lie on the meta device.
        prefix: only what begins with it is asked for.
    """
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for name, tensor in module.state_dict().items():
            if not name.startswith(prefix):
                continue
            if name not in names:
                raise ModelError(f"{path}: the tensor {name} is missing")
            found, needed = tuple(file.get_slice(name).get_shape()), tuple(tensor.shape)
            if found != needed:
                raise ModelError(f"{path}: {name} has shape {found}; the model needs {needed}")
            require_float(path, name, file.get_slice(name).get_dtype())


def require_floats(path: Path) -> None:
    """Raises ModelError for a safetensors file whose weights are no floats of 16 bits or more; masks and counters may be."""
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            shown = file.get_slice(name)
            if name.endswith(".weight") or (name.endswith(".bias") and len(shown.get_shape()) == 1):
                require_float(path, name, shown.get_dtype())


def require_float(path: Path, name: str, kind: str) -> None:
    """Raises ModelError unless this is the type of weights, by safetensors' name."""
    if kind not in FLOATS:
        raise ModelError(f"{path}: {name} has numbers of type {kind}; {', '.join(FLOATS)} are read")


def require_tokenizer(path: Path) -> dict[str, Any]:
    """The object in a tokenizer.json whose parts are no larger, and make no more of a text, than any tokenizer needs.

    Raises:
        ModelError: it is damaged, or one is.
    """
    found = read_object(path)
    for part in TOKENIZER_PARTS:
        values, growth = 0, 1.0
        stack = [(part, found.get(part))]
        while stack:
            key, value = stack.pop()
            values += 1
            if isinstance(value, dict):
                growth *= _growth(value)
                stack += value.items()
            elif isinstance(value, list):
                stack += [(key, entry) for entry in value]
            elif isinstance(value, str) and len(value) > MOST_LETTERS and key != CHARSMAP:
                raise ModelError(
                    f"{path}: {part}: {key} has {len(value):,} letters; at most {MOST_LETTERS:,}"
                )
            if values + len(stack) > MOST_VALUES:
                raise ModelError(f"{path}: {part}: more than {MOST_VALUES:,} values")
        if growth > MOST_GROWTH:
            raise ModelError(f"{path}: {part}: makes a text more than {MOST_GROWTH} times as long")
    return found


def _growth(step: dict[str, Any]) -> float:
    """How many times as long a step of a normalizer or decoder may make a text."""
    if step.get("type") != "Replace" or not isinstance(step.get("content"), str):
        return 1.0
    pattern = step.get("pattern")
    old = pattern.get("String") if isinstance(pattern, dict) else pattern
    return max(1.0, len(step["content"]) / max(1, len(old) if isinstance(old, str) else 1))


def require_ids(ids: torch.Tensor, words: int, where: str) -> None:
    """Raises ModelError for token ids (on the CPU) that the embedding of so many rows does not have."""
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < words):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise ModelError(f"{where}: the token {wrong} has no place in the model's {words} words")
