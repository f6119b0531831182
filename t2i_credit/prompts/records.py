"""What a GenEval record must look like: tasks, relations, class names, its wording as a prompt, and what is wrong with one.

Judges no image.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PromptError, UnknownClassError

if TYPE_CHECKING:
    from ..interfaces import Prompt

COCO_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
    *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    *("donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv"),
    *("laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
    *("scissors", "teddy bear", "hair drier", "toothbrush"),
)

WORLDS = ("shapes", "things")  # embedded: their prompts, judge and generator come with the package

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("one", "two", "three", "four")

_CLAUSE_KEYS = {
    "include": ("class", "count", "color", "position"),
    "exclude": ("class", "count"),
}


def caption(record: Mapping[str, Any], template: str = "a photo of") -> str:
    """The prompt of a record in GenEval's wording: "a photo of a red circle left of a square", "a photo of two benchs"."""
    clauses = record["include"]
    if record["tag"] == "counting":
        name, count = clauses[0]["class"], clauses[0]["count"]
        plural = f"{name}es" if name.endswith("s") else f"{name}s"
        content = f"{NUMBERS[count - 1]} {name if count == 1 else plural}"
    elif record["tag"] == "position":
        content = f"{noun(clauses[1])} {clauses[1]['position'][0]} {noun(clauses[0])}"
    else:
        content = " and ".join(map(noun, clauses))
    return f"{template} {content}"


def record_key(record: Mapping[str, Any], text: str) -> str:
    """What makes a prompt: its text and what the judge reads of its record. Prompts of one key are one prompt."""
    read = {key: record.get(key) or [] for key in ("tag", "include", "exclude")}
    return json.dumps({**read, "prompt": text}, sort_keys=True)


def prompt_key(prompt: Prompt) -> tuple[str, str | None]:
    """What makes a prompt with its negative."""
    return record_key(prompt.spec or {}, prompt.text), prompt.negative


def distinct(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The first of those that are one prompt, in their order."""
    found: dict[tuple[str, str | None], Prompt] = {}
    for prompt in prompts:
        found.setdefault(prompt_key(prompt), prompt)
    return list(found.values())


def noun(clause: Mapping[str, Any]) -> str:
    """A clause with its article: "an orange bench"."""
    noun = f"{clause['color']} {clause['class']}" if "color" in clause else clause["class"]
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def validate_spec(
    spec: Mapping[str, Any], *, classes: Collection[str] | None = None, where: str = "spec"
) -> None:
    """Checks that `spec` is a GenEval record that `geneval.judge` can use; silent if it is.

    Required are `tag` (any name, not only TASKS) and `include` (empty only if `exclude` is not);
    `exclude` and `prompt` are optional, further keys beside them are ignored. Clauses know only
    their own keys: a misspelt `colour` would otherwise be a check that is never made.

    Args:
        spec: the record.
        classes: the class names that exist, or None to allow any.
        where: what the error message calls the record, such as "prompts.jsonl line 3".

    Raises:
        PromptError: with one line that names the record, the key, the value and what is allowed.
    """
    if not isinstance(spec, Mapping):
        raise PromptError(f"{where}: a record must be an object with tag and include, got {spec!r}")
    for key in ("tag", "include"):
        if key not in spec:
            raise PromptError(f"{where}: key {key!r} is missing")
    for key in ("tag", "prompt"):
        if key in spec and not (isinstance(spec[key], str) and spec[key]):
            raise PromptError(f"{where}: {key} must be a non-empty text, got {spec[key]!r}")
    if spec["tag"] == "overall":
        raise PromptError(f"{where}: tag 'overall' is taken by the mean over tasks, use another")
    for kind in _CLAUSE_KEYS:
        clauses = spec.get(kind, ())
        if not _is_list(clauses):
            raise PromptError(f"{where}: {kind} must be a list of clauses, got {clauses!r}")
        for index, clause in enumerate(clauses):
            _validate_clause(clause, kind, index, classes, f"{where}: {kind}[{index}]")
    if not spec["include"] and not spec.get("exclude"):
        raise PromptError(f"{where}: include must hold at least one clause, got none")


def _validate_clause(
    clause: object, kind: str, index: int, classes: Collection[str] | None, at: str
) -> None:
    """Raises PromptError unless `clause` is a well-formed include or exclude clause."""
    if not isinstance(clause, Mapping):
        raise PromptError(f"{at} must be an object with class and count, got {clause!r}")
    keys = _CLAUSE_KEYS[kind]
    for key in clause:
        if key not in keys:
            raise PromptError(
                f"{at}: unknown key {key!r}; allowed are {', '.join(keys)}{_hint(key, keys)}"
            )
    for key in ("class", "count"):
        if key not in clause:
            raise PromptError(f"{at}: key {key!r} is missing")
    for key in ("class", "color"):
        if key in clause and not (isinstance(clause[key], str) and clause[key]):
            raise PromptError(f"{at}.{key} must be a non-empty text, got {clause[key]!r}")
    if classes is not None and clause["class"] not in classes:
        name = clause["class"]
        raise UnknownClassError(
            f"{at}.class: unknown class {name!r} ({len(classes)} are known){_hint(name, classes)}"
        )
    if not _is_int(clause["count"]) or clause["count"] < 1:
        raise PromptError(f"{at}.count must be an integer of at least 1, got {clause['count']!r}")
    if "position" in clause:
        _validate_position(clause["position"], index, f"{at}.position")


def _validate_position(position: Any, index: int, at: str) -> None:
    """Raises PromptError unless `position` is [relation, index of an earlier include clause]."""
    if not _is_list(position) or len(position) != 2:
        raise PromptError(f"{at} must be [relation, index of a clause], got {position!r}")
    relation, target = position
    if relation not in RELATIONS:
        raise PromptError(
            f"{at}: unknown relation {relation!r}; allowed are {', '.join(RELATIONS)}"
            f"{_hint(relation, RELATIONS)}"
        )
    if not _is_int(target) or not 0 <= target < index:
        allowed = f"an earlier include clause, 0 to {index - 1}" if index else "none: it is first"
        raise PromptError(f"{at}: target {target!r} is not allowed; allowed is {allowed}")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _hint(value: object, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
