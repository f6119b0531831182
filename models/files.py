"""Finds a model's folder (a local one, or a Hugging Face hub id) and reads transformers' models whole or not at all.

Builds no adapter. Everything wrong with the files is a ModelError that names one.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..errors import ModelError, one_line
from ..files import MOST_GIVEN
from .bounds import (
    named_errors,
    read_object,
    require_described,
    require_floats,
    require_shapes,
    require_sizes,
    require_tokenizer,
)

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
SHARDS, WHOLE = "model.safetensors.index.json", "model.safetensors"
# one of each row is there; without a tokenizer's file transformers may make one of an empty vocabulary
TOKENIZER = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
TOKENIZES = ("tokenizer", "processor")  # parts that have a tokenizer
PROCESSOR = (("processor_config.json", "preprocessor_config.json"), ("tokenizer_config.json",))
# weights of other formats stay on the hub; .model is sentencepiece's, .pt LlamaGen's
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.pt")
SETTINGS = (".json", ".jinja", ".txt", ".model")
LFS_POINTER = b"version https://git-lfs"
TORCH = (b"PK", b"\x80")  # how a file of torch.save begins, a zip or a pickle
Part = TypeVar("Part")


class _DownloadBar(tqdm):
    """The bytes that arrive, on a terminal; not the bar of the files, which is there without a download, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        shown = options.get("unit") == "B" and sys.stderr.isatty()
        super().__init__(*args, **{**options, "disable": not shown, "leave": False})


def snapshot(name: str, patterns: Sequence[str] = _WANTED) -> Path:
    """The folder of a hub id, downloaded or from the local cache.

    Raises:
        ModelError: there is no such repository, or no network and no copy in the cache, or the download breaks off.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), tqdm_class=_DownloadBar))
    except LocalEntryNotFoundError:
        reason = "not in the local cache, and the hub cannot be reached"
    except (HTTPError, HFValidationError, OSError) as error:
        reason = one_line(error)[:300]
    raise ModelError(f"model {name!r}: no such folder; on the Hugging Face hub: {reason}")


def inside(folder: Path, name: object, key: str) -> Path:
    """The file or folder of a model folder that its own settings name.

    Args:
        folder: the model folder.
        name: as it stands under `key`.

    Raises:
        ModelError: it leads out of the folder.
    """
    path = os.path.normpath(str(name))
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise ModelError(f"{folder}: {key}: {str(name)!r:.80} leads out of the folder")
    return folder / path


def require_weights(folder: Path) -> list[Path]:
    """The files of a model's weights. Raises ModelError unless model.safetensors, or every shard that its index names, is
    there and whole."""
    if (folder / WHOLE).is_file():
        require_whole(folder / WHOLE)
        return [folder / WHOLE]
    if not (folder / SHARDS).is_file():
        pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        found = (
            f"; {pickles[0].name} is a pickle, which is not read: save it as safetensors"
            if pickles
            else ""
        )
        raise ModelError(f"{folder}: neither {WHOLE} nor {SHARDS}{found}")
    shards = read_object(folder / SHARDS).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{folder / SHARDS}: weight_map: missing")
    for shard in sorted({str(shard) for shard in shards.values()}):
        inside(folder, shard, f"{SHARDS}: weight_map")
        if not (folder / shard).is_file():
            raise ModelError(f"{folder / shard}: missing; {SHARDS} names it")
        require_whole(folder / shard)
    return [folder / shard for shard in sorted({str(shard) for shard in shards.values()})]


def require_whole(path: Path) -> None:
    """Reads the beginning of a file of weights, not the weights.

    Raises:
        ModelError: it is empty, a git-lfs pointer, a .safetensors file that is damaged or cut off, or no file of weights.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(LFS_POINTER))
        if begins == LFS_POINTER:
            raise ModelError(
                f"{path}: a git-lfs pointer in place of the weights; git lfs pull fetches them"
            )
        if not begins:
            raise ModelError(f"{path}: empty; copy or download it again")
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        elif begins.startswith(TORCH[0]):
            with zipfile.ZipFile(path) as packed:
                if any(entry.compress_type for entry in packed.infolist()):
                    raise ModelError(
                        f"{path}: is a compressed archive; torch.save compresses nothing"
                    )
        elif not begins.startswith(TORCH):
            raise ModelError(
                f"{path}: no file of weights, it begins with {begins[:8]!r}; .safetensors files are read, and tensors "
                "that torch.save wrote"
            )
    except (OSError, SafetensorError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"{path}: damaged: {one_line(error)}") from None


def require_whole_files(place: str | Path) -> None:
    """`require_whole` of a file, or of every .safetensors file in a folder, and `require_sizes` of its config.json; what is
    neither has nothing to read yet."""
    path = Path(place)
    if (path / "config.json").is_file():
        require_sizes(path / "config.json")
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        if file.is_file():
            require_whole(file)


def hub_files(folder: Path) -> list[Path]:
    """The configuration and the weights of a model that transformers saved."""
    index = [folder / SHARDS] if (folder / SHARDS).is_file() else []
    return [folder / "config.json", *index, *require_weights(folder)]


def load_part(what: str, folder: Path, load: Callable[..., Part], **options: Any) -> Part:
    """What `load(folder)` gives; whatever transformers says against it becomes one line. Python code that lies in the folder
    is never run.

    Args:
        what: the part's name, for the message.
    """
    if load.__module__.startswith("transformers."):
        options["trust_remote_code"] = False
    with named_errors(folder, what):
        for file in folder.iterdir():
            if file.suffix in SETTINGS and file.is_file() and file.stat().st_size > MOST_GIVEN:
                raise OSError(f"{file.name} has more than {MOST_GIVEN:,} bytes")
        if what in TOKENIZES and (folder / TOKENIZER[0]).is_file():
            require_tokenizer(folder / TOKENIZER[0])
        return load(folder, **options)


def require_one(folder: Path, names: Sequence[str], what: str) -> None:
    """Raises ModelError unless the folder holds one of these files, of which the first is named."""
    if not any((folder / name).is_file() for name in names):
        raise ModelError(f"{folder / names[0]}: missing; {what} has one")


def read_config(config_class: Any, folder: Path) -> Any:
    """A transformers configuration, by its class or AutoConfig; ModelError names the file."""
    require_sizes(folder / "config.json")
    with named_errors(folder / "config.json", "model"):
        return config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_processor(processor_class: Any, folder: Path) -> Any:
    """A transformers processor of text and images.

    Raises:
        ModelError: a file is missing or damaged, or the tokenizer names no image tokens.
    """
    from transformers import AutoConfig

    for names in (TOKENIZER, *PROCESSOR):
        require_one(folder, names, "a processor")
    read_config(AutoConfig, folder)  # which a processor asks too, and blames itself
    try:
        return load_part("processor", folder, processor_class.from_pretrained)
    except ModelError as error:
        if unnamed := re.search(r"has no attribute (\w+_token)", str(error)):
            raise ModelError(
                f"{folder / 'tokenizer_config.json'}: the processor has no image tokens: {unnamed[1]} is missing"
            ) from None
        raise


def load_weights(model_class: Any, folder: Path) -> Any:
    """A transformers model in the number format of its checkpoint, on the CPU, in evaluation mode.

    Raises:
        ModelError: a shard is missing or damaged, or a tensor is missing or has another shape.
    """
    path = folder / "config.json"
    files = require_weights(folder)
    config = read_config(model_class.config_class, folder)
    require_described(path, lambda: model_class(config), files)
    for file in files:
        require_floats(file)
    model, report = load_part(
        "model",
        folder,
        model_class.from_pretrained,
        dtype="auto",
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # which is a report without a name otherwise
    )
    if report["mismatched_keys"]:
        name, found, needed = sorted(report["mismatched_keys"])[0]
        raise ModelError(
            f"{folder}: {name} has shape {tuple(found)}; config.json describes {tuple(needed)}"
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder}: the tensor {missing[0]} is missing ({len(missing)} in all)")
    return model.eval()


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raises ModelError if a weight is infinite or not a number, as a run that went wrong leaves them."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            ends = torch.stack(tensor.detach().aminmax())  # of a tensor with a nan both are
            if not bool(torch.isfinite(ends.float()).all()):
                raise ModelError(f"{where}: the tensor {name} holds values that are not finite")


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Raises ModelError unless the folder holds all these files."""
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing; a model folder holds {', '.join(names)}")


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


def require_tensors(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Raises ModelError unless a safetensors file is whole, and has the tensors of a module, which may lie on the meta device."""
    require_whole(path)
    require_shapes(path, module, prefix)


def load_tensors(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Puts the tensors of a safetensors file into a module; every one that it has is in the file, and fits.

    Args:
        module: its parameters keep their own type.
        path: the file; tensors that the module does not know are ignored.
        prefix: load only what begins with it.

    Raises:
        ModelError: the file cannot be read, or a tensor is missing or has another shape.
    """
    require_tensors(module, path, prefix)
    tensors = load_file(path)
    wanted = [name for name in module.state_dict() if name.startswith(prefix)]
    module.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
