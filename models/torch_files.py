"""Published checkpoints of PyTorch (.pt, .ckpt, or .safetensors): their tensors by name, and into a module. A file is never
unpickled freely, and builds nothing."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError, one_line
from .files import require_whole

FORMATS = (torch.float32, torch.float16, torch.bfloat16)
_TENSORS = ("model", "module", "state_dict")  # what the published training scripts call them


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, on the CPU.

    Raises:
        ModelError: it is missing or damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise ModelError(f"{path}: missing")
    require_whole(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: damaged, or more than tensors: {one_line(error)[:200]}"
        ) from None
    named = next((raw[k] for k in _TENSORS if k in raw), raw) if isinstance(raw, dict) else None
    if not isinstance(named, dict) or not all(isinstance(t, Tensor) for t in named.values()):
        raise ModelError(f"{path}: holds no tensors by name")
    for name, tensor in named.items():
        if not _is_held(tensor):
            raise ModelError(f"{path}: {name} has numbers that the file does not hold")
    return named


def _is_held(tensor: Tensor) -> bool:
    """Whether every number of a tensor lies in its file: a view may show one number as often as it likes."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def require_fit(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    wanted: Collection[str] | None = None,
    unused: Collection[str] = (),
) -> None:
    """Raises ModelError unless tensors are those of a module, which may lie on the meta device.

    Args:
        path: where the tensors come from.
        wanted: those of the module that must be there; None = all.
        unused: names that may be there besides.
    """
    own = module.state_dict()
    wanted = set(own) if wanted is None else set(wanted)
    for name in sorted(wanted):
        if name not in tensors:
            raise ModelError(f"{path}: the tensor of {name} is missing")
        if tensors[name].dtype not in FORMATS:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FORMATS)
            raise ModelError(
                f"{path}: {name} has numbers of type {tensors[name].dtype}; {kinds} are read"
            )
        if tensors[name].shape != own[name].shape:
            found, needed = tuple(tensors[name].shape), tuple(own[name].shape)
            raise ModelError(f"{path}: {name} has shape {found}; the model needs {needed}")
    if unknown := sorted(set(tensors) - wanted - set(unused)):
        raise ModelError(f"{path}: the tensor {unknown[0]} belongs to another architecture")


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    wanted: Collection[str] | None = None,
    unused: Collection[str] = (),
) -> None:
    """Puts tensors into a module, which keeps its own number format; raises as `require_fit`."""
    require_fit(module, tensors, path, wanted=wanted, unused=unused)
    names = module.state_dict() if wanted is None else wanted
    module.load_state_dict({name: tensors[name] for name in names}, strict=False)


def shape_of(
    tensors: Mapping[str, Tensor], path: Path, name: str, dimensions: int, what: str
) -> tuple[int, ...]:
    """The shape of a tensor that must be there with so many dimensions; ModelError asks whether the file is a checkpoint of `what`."""
    if name not in tensors:
        raise ModelError(f"{path}: the tensor {name} is missing; is this a {what} checkpoint?")
    if tensors[name].ndim != dimensions:
        found = tuple(tensors[name].shape)
        raise ModelError(f"{path}: {name} has shape {found}; it needs {dimensions} dimensions")
    return tuple(tensors[name].shape)
