"""Prompt sets: files in and out, checked line by line. It makes up no prompts and judges no image.

Texts alone may come in other formats (formats.py); what else belongs to a prompt has one JSON object a line:
    {"text": "a red circle", "negative": "blurry", "spec": {"tag": ..., "include": [...]}, "reference": "gold/0.png"}
or an official GenEval record, which is its own spec:
    {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "a photo of two clocks"}
Only the text is required, and its key may be prompt, prompts, caption or text in any case. An empty negative is a text; null
is the model's own null prompt. A relative reference is looked up beside the file. Other keys are ignored, unless they
look like a misspelt one of these.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PromptError, UserError, one_line
from ..files import read_given
from .formats import PROMPT_KEYS, SUFFIXES, Row, read_row, read_rows
from .records import validate_spec
from .written import expanded, is_null_word

if TYPE_CHECKING:
    from ..interfaces import Prompt

HUB = "hf://datasets/"
KEYS = ("text", "prompt", "negative", "spec", "reference", "tag", "include", "exclude")


def load_prompts(
    path: str | os.PathLike[str],
    *,
    classes: Collection[str] | None = None,
    negative: str | None = None,
    column: str | None = None,
) -> list[Prompt]:
    """The prompts of a file, in its order; blank lines are skipped.

    Args:
        path: the file, or one in a data set of the Hugging Face hub: "hf://datasets/owner/name/folder/file.jsonl".
            Its name says which format it has, see formats.py.
        classes: the object classes that a spec may name; None = any.
        negative: the negative prompt of lines that have no `negative` of their own (null counts as one).
        column: the column or key that holds the prompts; None = the one called prompt, prompts, caption or text.

    Raises:
        PromptError: one line that names the file and, where there is one, the line.
    """
    name = _shown(os.fspath(path))
    if os.fspath(path).startswith(HUB):
        path = _from_hub(os.fspath(path))
    kinds = ", ".join(SUFFIXES)
    if os.path.isdir(path):
        raise PromptError(f"{name}: is a folder, not a prompt file ({kinds})")
    if not os.path.exists(path):
        looked = "" if os.path.isabs(path) else f" in {_shown(os.getcwd())}"
        raise PromptError(f"{name}: no such prompt file{looked}")
    try:
        text = read_given(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise PromptError(f"{name}: cannot be read ({error.strerror})") from None
    if "\0" in text:
        raise PromptError(f"{name}: is not a text file (UTF-8); prompt files are {kinds}")
    rows = read_rows(text, Path(path).suffix.lower(), name, column)
    if not rows:
        raise PromptError(f"{name}: holds no prompt")
    return [_prompt(row, os.path.dirname(path), classes, negative) for row in rows]


def parse_prompt(text: str, where: str, folder: str) -> Prompt:
    """The prompt of one JSON object, over as many lines as it likes.

    Args:
        where: what an error calls it.
        folder: that of a relative reference.

    Raises:
        PromptError: as of a line of a prompt file.
    """
    return _prompt(read_row(text, where), folder, None, None)


def save_prompts(prompts: Iterable[Prompt], path: str | os.PathLike[str]) -> None:
    """Writes a prompt file that `load_prompts` reads back as the same prompts; whole or not at all.

    A relative reference is rewritten to be relative to the new file's folder.
    """
    folder = os.path.dirname(path) or "."
    lines = []
    for prompt in prompts:
        line: dict[str, Any] = {"text": prompt.text, "negative": prompt.negative}
        if prompt.spec is not None:
            line["spec"] = dict(prompt.spec)
        if prompt.reference is not None:
            absolute = os.path.isabs(prompt.reference)
            line["reference"] = (
                prompt.reference if absolute else os.path.relpath(prompt.reference, folder)
            )
        lines.append(json.dumps(line) + "\n")
    write_lines(lines, path)


def write_lines(lines: Iterable[str], path: str | os.PathLike[str]) -> None:
    """Writes a file whole or not at all.

    Raises:
        PromptError: the disk refuses.
    """
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        temporary.write_text("".join(lines), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PromptError(
            f"{_shown(os.fspath(path))}: cannot be written ({error.strerror})"
        ) from None


def _from_hub(source: str) -> str:
    """Downloads a file of a data set, once, and says where it lies."""
    from huggingface_hub import hf_hub_download

    owner, name, file = [*source.removeprefix(HUB).split("/", 2), "", ""][:3]
    if not (owner and name and file):
        raise PromptError(f"{source}: must be {HUB}owner/name/file.jsonl")
    try:
        return hf_hub_download(f"{owner}/{name}", file, repo_type="dataset")
    except (OSError, ValueError) as error:
        raise PromptError(f"{source}: cannot be downloaded ({one_line(error):.160})") from None


def _prompt(
    row: Row,
    folder: str,
    classes: Collection[str] | None,
    default_negative: str | None,
) -> Prompt:
    # Imported here because the contracts need torch, and reading prompts should not wait for it.
    from ..interfaces import Prompt

    where, text_key, record = row
    for key in record:
        known = key in KEYS or key == text_key or key.strip().casefold() in PROMPT_KEYS
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.9)
        if near and not known:
            raise PromptError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")
    text = record[text_key]
    _check_text(text, text_key, where)
    if not text.strip():
        raise PromptError(f"{where}: {text_key} is empty; a prompt needs words")
    negative = default_negative
    if "negative" in record and (negative := record["negative"]) is not None:
        _check_text(negative, "negative", where)
        if is_null_word(negative):
            raise PromptError(f"{where}: negative is the text {negative!r}; did you mean null?")
    spec = _spec_of(record, where)
    if spec is not None:
        validate_spec(spec, classes=classes, where=where)
    reference = record.get("reference")
    if reference is not None:
        if not isinstance(reference, str) or not reference:
            raise PromptError(
                f"{where}: reference must be the path of an image, got {reference!r:.60}"
            )
        try:
            path = os.path.normpath(os.path.join(folder, expanded(reference)))
        except UserError as error:
            raise PromptError(f"{where}: reference: {error}") from None
        if not os.path.isfile(path):
            raise PromptError(f"{where}: reference {reference!r}: no such file ({_shown(path)})")
        reference = path
    return Prompt(text=text, negative=negative, spec=spec, reference=reference)


def _spec_of(record: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The spec of a line: under its key, or the line itself if it is an official record."""
    official = [key for key in ("tag", "include", "exclude") if key in record]
    spec = record.get("spec")
    if official == ["tag"] and spec is None:  # anybody's, and no record
        official = []
    if spec is not None and official:
        raise PromptError(
            f"{where}: has a 'spec' and {official[0]!r} beside it; move that into the spec"
        )
    if official:
        return record
    if spec is not None and not isinstance(spec, dict):
        raise PromptError(f"{where}: spec must be an object with tag and include, got {spec!r:.60}")
    return spec


def _check_text(value: Any, key: str, where: str) -> None:
    if not isinstance(value, str):
        raise PromptError(f"{where}: {key} must be a text, got {value!r:.60}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise PromptError(f"{where}: {key} holds half of a surrogate pair, which is no text")


def _shown(path: str) -> str:
    """A path as part of a one-line message."""
    return path if path.isprintable() else repr(path)
