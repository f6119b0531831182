"""Finds a model's folder (a local one, or a Hugging Face hub id) and reads transformers' models whole or not at all.

Builds no adapter. Everything wrong with the files is a ModelError that names one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..errors import ModelError
from .model_files import read_object

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
SHARDS, WHOLE = "model.safetensors.index.json", "model.safetensors"
# one of each row is there; without a tokenizer's file transformers may make one of an empty vocabulary
TOKENIZER = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
PROCESSOR = (("processor_config.json", "preprocessor_config.json"), ("tokenizer_config.json",))
# weights of other formats stay on the hub; .model is sentencepiece's, .pt LlamaGen's
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.pt")
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
        reason = str(error).strip().splitlines()[0]
    raise ModelError(f"model {name!r}: no such folder; on the Hugging Face hub: {reason}")


def require_weights(folder: Path) -> None:
    """Raises ModelError unless model.safetensors, or every shard that its index names, is there."""
    if (folder / WHOLE).is_file():
        return
    if not (folder / SHARDS).is_file():
        raise ModelError(f"{folder}: neither {WHOLE} nor {SHARDS}; the model has no weights")
    shards = read_object(folder / SHARDS).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{folder / SHARDS}: weight_map: missing")
    for shard in sorted(set(shards.values())):
        if not (folder / shard).is_file():
            raise ModelError(f"{folder / shard}: missing; {SHARDS} names it")


def load_part(what: str, folder: Path, load: Callable[..., Part], **options: Any) -> Part:
    """What `load(folder)` gives; whatever transformers says against it becomes one line.

    Args:
        what: the part's name, for the message.
    """
    try:
        return load(folder, **options)
    except MemoryError:  # says nothing against the files
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise all kinds
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder}: the {what} cannot be read: {reason}") from error


def require_one(folder: Path, names: Sequence[str], what: str) -> None:
    """Raises ModelError unless the folder holds one of these files, of which the first is named."""
    if not any((folder / name).is_file() for name in names):
        raise ModelError(f"{folder / names[0]}: missing; {what} has one")


def load_processor(processor_class: Any, folder: Path) -> Any:
    """A transformers processor of text and images.

    Raises:
        ModelError: a file is missing or damaged, or the tokenizer names no image tokens.
    """
    for names in (TOKENIZER, *PROCESSOR):
        require_one(folder, names, "a processor")
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
    require_weights(folder)
    model, report = load_part(
        "model",
        folder,
        model_class.from_pretrained,
        dtype="auto",
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder}: the tensor {missing[0]} is missing ({len(missing)} in all)")
    return model.eval()
