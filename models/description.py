"""What a generator is that needs no code: a YAML file, or the config.json of a model folder, that names its parts and how they belong
together. Loads no part.

```yaml
model_type: causal_image
language_model: Junfeng5/Liquid_V1_7B   # a hub id, or a folder
image_tokenizer: {kind: chameleon, path: vqgan}   # a folder
codes: after_text                       # the vocabulary's first place behind the text tokenizer's; or that place; or a list
grid: [32, 32]
prompt: "{prompt} Generate an image based on this description.<boi>"
null_prompt: "<unconditional><boi>"     # left out = padding in the prompt's place
sampling: {cfg_scale: 7.0, temperature: 0.99, top_k: 4096, top_p: 0.96}
```
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError, ModelError, one_line
from ..files import read_given
from ..yaml_text import parse_yaml
from .bounds import MOST_SIZE, read_object
from .tokenizers import KINDS

MODEL_TYPE = "causal_image"
ALLOWED = {
    "language_model": "a folder, or a hub id",
    "architecture": "a model type of transformers, such as qwen2",
    "tokenizer": "a folder, or a hub id",
    "image_tokenizer": "such as {kind: chameleon, path: FOLDER}",
    "image_tokenizer.kind": f"one of {', '.join(KINDS)}",
    "image_tokenizer.path": "a folder",
    "image_tokenizer.levels": "how many levels each number of a code has, such as [8, 8, 8, 5, 5, 5]",
    "image_tokenizer.factor": "pixels of a code's side, 1 to 64",
    "image_tokenizer.frames": "true or false",
    "image_tokenizer.patch": "pixels of a patch's side, 1 to 64",
    "codes": "after_text, the place of the first code in the vocabulary, or a list of all places",
    "grid": "rows and columns of codes, 1 to 256 each, such as [32, 32]",
    "prompt": "a text with {prompt} in it",
    "null_prompt": "a text",
    "row_end": "a token, such as <eol>",
    "sampling": "such as {cfg_scale: 5.0, temperature: 1.0, top_k: 0, top_p: 1.0}",
    "sampling.cfg_scale": "a number, 0 to 100",
    "sampling.temperature": "a number above 0, at most 100",
    "sampling.top_k": "a whole number, 0 = among all",
    "sampling.top_p": "a number above 0, at most 1",
}
PRESETS = Path(__file__).parent / "presets"
PROMPT = "{prompt}"
MOST_SIDE, MOST_TEXT = 256, 4096
_MARKER = re.compile(r"<\|?[A-Za-z_][\w ]*\|?>")  # such as <boi>, <|soi|>

Side = Annotated[int, Field(ge=1, le=MOST_SIDE)]
Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ImageTokenizerDescription(_Strict):
    """The image tokenizer.

    Attributes:
        kind: how its files are laid out; see tokenizers/__init__.py.
        path: the folder that holds them.
        levels, factor, frames: of kind torchscript, see tokenizers/torchscript.py.
        patch: of kind vq_model, see tokenizers/vq_model.py.
    """

    kind: str
    path: Text
    levels: Annotated[list[Annotated[int, Field(ge=2, le=64)]], Field(max_length=16)] = []
    factor: Annotated[int, Field(ge=1, le=64)] = 16
    frames: bool = False
    patch: Annotated[int, Field(ge=1, le=64)] = 1


class Sampling(_Strict):
    """How the model is usually sampled."""

    cfg_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    temperature: Annotated[float, Field(gt=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_SIZE)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


class Description(_Strict):
    """See the top of this file.

    Attributes:
        architecture: what of transformers the language model is, where its own config.json names what transformers does not know.
        tokenizer: where the text tokenizer lies; None = with the language model.
        grid: (H, W) in codes.
        row_end: the token behind each row of codes.
    """

    model_type: Literal["causal_image"] = "causal_image"
    language_model: Text
    architecture: Text | None = None
    tokenizer: Text | None = None
    image_tokenizer: ImageTokenizerDescription
    codes: Literal["after_text"] | Annotated[int, Field(ge=0, le=MOST_SIZE)] | list[int]
    grid: Annotated[list[Side], Field(min_length=2, max_length=2)]
    prompt: Text
    null_prompt: Text | None = None
    row_end: Text | None = None
    sampling: Sampling = Sampling()

    def markers(self) -> Iterator[tuple[str, str]]:
        """(key, marker) of every marker in the templates."""
        for key in ("prompt", "null_prompt", "row_end"):
            for marker in _MARKER.findall((getattr(self, key) or "").replace(PROMPT, "")):
                yield key, marker

    def saved(self, language_model: str, images: str) -> dict[str, Any]:
        """The description of a saved model, whose parts lie in these folders beside it."""
        tree = self.model_dump(mode="json", exclude_defaults=True)
        tree["image_tokenizer"]["path"] = images
        tree |= {"model_type": MODEL_TYPE, "language_model": language_model}
        tree.pop("tokenizer", None)
        tree.pop("architecture", None)  # it is saved under its true name
        return tree


def presets() -> list[str]:
    """The names of published models that are described here."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def is_description(path: Path) -> bool:
    """Whether a name is that of a description in a file of its own."""
    return path.suffix in (".yaml", ".yml") and path.is_file()


def described(place: Path) -> Description | None:
    """The description that a name stands for; None if it stands for something else."""
    config = place / "config.json"
    if is_description(place):
        return read_description(place)[1]
    if config.is_file() and read_object(config).get("model_type") == MODEL_TYPE:
        return read_description(place)[1]
    return None


def read_description(place: str | Path) -> tuple[Path, Description]:
    """The description in a file, or in a folder's config.json, and where it stands.

    Raises:
        ModelError: it cannot be read, or a key is wrong.
    """
    path = Path(place)
    if path.is_dir():
        path = path / "config.json"
        return path, _checked(read_object(path), path)
    tree = _read_yaml(path)
    if (preset := tree.pop("preset", None)) is not None:
        if preset not in presets():
            known = ", ".join(presets())
            raise ModelError(f"{path}: preset: {preset!r:.80} is not known; known: {known}")
        tree = _merged(_read_yaml(PRESETS / f"{preset}.yaml"), tree)
    return path, _checked(tree, path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(read_given(path, 1 << 24), str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ConfigError as error:
        raise ModelError(one_line(error)) from None
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: no description of a model: it holds no keys")
    return tree


def _merged(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with what a file says instead, key by key."""
    found = dict(base)
    for key, value in tree.items():
        old = found.get(key)
        found[key] = (
            {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return found


def _checked(tree: Mapping[str, Any], path: Path) -> Description:
    kind = tree.get("model_type")
    if kind != MODEL_TYPE:
        said = "missing" if kind is None else f"{kind!r:.80} is not allowed"
        raise ModelError(
            f"{path}: model_type: {said}; {MODEL_TYPE!r} says that this describes a model"
        )
    try:
        found = Description.model_validate(dict(tree))
    except ValidationError as error:
        raise ModelError(f"{path}: {_problem(error, tree)}") from None
    if found.prompt.count(PROMPT) != 1:
        times = found.prompt.count(PROMPT)
        raise ModelError(f"{path}: prompt: holds {PROMPT} {times} times; once is right")
    if found.null_prompt is not None and PROMPT in found.null_prompt:
        raise ModelError(f"{path}: null_prompt: holds {PROMPT}; it is a text of its own")
    if found.image_tokenizer.kind not in KINDS:
        kinds = ", ".join(KINDS)
        said = f"{found.image_tokenizer.kind!r:.80} is not known; known: {kinds}"
        raise ModelError(f"{path}: image_tokenizer.kind: {said}")
    if found.image_tokenizer.kind == "torchscript" and not found.image_tokenizer.levels:
        raise ModelError(f"{path}: image_tokenizer.levels: missing; such as [8, 8, 8, 5, 5, 5]")
    return found


def _problem(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """What is wrong first, in one line: unknown keys before wrong values."""
    details = error.errors()
    detail = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    parts = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        inner: dict[str, type[BaseModel]] = {
            "image_tokenizer": ImageTokenizerDescription,
            "sampling": Sampling,
        }
        holder = inner[parts[0]] if len(parts) > 1 else Description
        known = list(holder.model_fields)
        near = difflib.get_close_matches(parts[-1], known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{one_line('.'.join(parts)):.100}: unknown key{hint} (allowed: {', '.join(known)})"
    key = ".".join(parts[:2]) if ".".join(parts[:2]) in ALLOWED else parts[0]
    if detail["type"] == "missing":
        return f"{key}: missing; {ALLOWED[key]}"
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else value
    return f"{key}: {value!r:.80} is not allowed; {ALLOWED[key]}"
