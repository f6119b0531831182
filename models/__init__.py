"""Imported as `t2i_credit.models`, from this top-level folder: image-token generators, and how a name becomes one.

A model folder says what it is in its config.json (`model_type`), a described generator in a .yaml. Heavy imports happen when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import read_json
from ..prompts.records import WORLDS

EMBEDDED = Path(__file__).parent / "embedded"
TEXT_MODELS = ("arithmetic",)


def _load_embedded(folder: Path) -> Any:
    from .embedded_model import EmbeddedModel

    return EmbeddedModel.from_pretrained(folder)


def _load_janus(folder: Path) -> Any:
    from .janus import JanusImageModel

    return JanusImageModel.from_pretrained(folder)


def _load_emu3(folder: Path) -> Any:
    from .emu3 import Emu3ImageModel

    return Emu3ImageModel.from_pretrained(folder)


def _load_llamagen(folder: Path) -> Any:
    from .llamagen import LlamaGenModel

    return LlamaGenModel.from_pretrained(folder)


def _load_llamagen_classes(folder: Path) -> Any:
    from .llamagen import LlamaGenClassModel

    return LlamaGenClassModel.from_pretrained(folder)


def _load_causal(place: Path) -> Any:
    from .causal import CausalImageModel

    return CausalImageModel.from_pretrained(place)


# model_type in config.json -> loader of the folder
MODELS: dict[str, Callable[[Path], Any]] = {
    "t2i_credit_embedded": _load_embedded,
    "janus": _load_janus,
    "emu3": _load_emu3,
    "llamagen_t2i": _load_llamagen,
    "llamagen_c2i": _load_llamagen_classes,
    "causal_image": _load_causal,
}


def embedded_names() -> list[str]:
    """The generators that come with the package; its text models are text_model.py's."""
    # a name with a dot in front is a folder that is still being written
    names = [path.parent.name for path in EMBEDDED.glob("[!.]*/config.json")]
    return sorted(name for name in names if name not in TEXT_MODELS)


def load_pretrained(name_or_path: str) -> Any:
    """Loads an embedded generator by name, a model folder, a description (.yaml, see description.py), or a Hugging Face hub id such
    as deepseek-community/Janus-Pro-1B (downloaded once, then read from the local cache). Where it is a LoRA adapter of peft,
    the model that it was made for, with the adapter.

    Raises:
        ModelError: there is no such model, its architecture is not supported, or a file is missing or damaged.
    """
    from .adapter import add_adapter, base_of, is_adapter
    from .description import is_description
    from .files import snapshot

    architecture = check_pretrained(name_or_path)
    if is_description(Path(name_or_path)):
        return MODELS[architecture](Path(name_or_path))
    folder = _folder(name_or_path)
    folder = folder if folder.is_dir() else snapshot(name_or_path)
    if is_adapter(folder):
        return add_adapter(load_pretrained(base_of(folder)), folder)
    return MODELS[architecture](folder)


def check_pretrained(name_or_path: str) -> str:
    """The `model_type` behind a name that `load_pretrained` takes; of a hub id only config.json is downloaded.

    Raises:
        ModelError: there is no such model, or its architecture is not supported.
    """
    from .description import MODEL_TYPE, is_description, presets, read_description
    from .files import HUB_ID, snapshot

    folder = _folder(name_or_path)
    if is_description(folder):
        read_description(folder)
        return MODEL_TYPE
    if name_or_path in presets() and not folder.is_dir():
        raise ModelError(
            f"model {name_or_path!r}: a published model whose image tokenizer lies on your disk: name a .yaml file that says "
            f"`preset: {name_or_path}` and `image_tokenizer: {{path: FOLDER}}`"
        )
    if folder.is_dir():
        return _architecture(folder)
    if not HUB_ID.fullmatch(name_or_path):
        known = ", ".join(embedded_names()) or "none"
        what = "file" if folder.suffix in (".yaml", ".yml") else "folder"
        raise ModelError(f"model {name_or_path!r}: no such {what}; embedded models: {known}")
    return _architecture(snapshot(name_or_path, ["config.json", "adapter_config.json"]))


def world_of(name: str) -> str | None:
    """The embedded world that a generator was made for; None if its folder names none or is not there."""
    try:
        config = read_json(_folder(name) / "config.json")
    except (OSError, ValueError):
        return None
    world = config.get("world") if isinstance(config, dict) else None
    return world if world in WORLDS else None


def _folder(name: str) -> Path:
    """Where a model lies, if it is on this machine."""
    return EMBEDDED / name if name in embedded_names() else Path(name)


def _architecture(folder: Path) -> str:
    """The `model_type` of a folder, if it is one of ours; of an adapter that of its base."""
    from .adapter import base_of, is_adapter

    if is_adapter(folder):
        return check_pretrained(base_of(folder))
    path = folder / "config.json"
    try:
        kind = read_json(path).get("model_type")
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model folder has one") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a readable JSON object: {error}") from None
    if kind == "multi_modality":
        raise ModelError(
            f"{path}: model_type 'multi_modality' is the layout of DeepSeek's own code; the same weights in that of "
            "transformers are deepseek-community/Janus-Pro-1B and deepseek-community/Janus-Pro-7B"
        )
    if not isinstance(kind, str) or kind not in MODELS:
        supported = ", ".join(MODELS)
        raise ModelError(f"{path}: model_type {kind!r} is not supported; supported: {supported}")
    return str(kind)
