"""Prompt sets in GenEval's style: its six tasks over any names, colours and relations, as official records.

Texts, articles and plurals are those of the official list, regular plurals included ("two benchs"), so that what a
model trains on reads like what it is tested on. Source: Ghosh et al. 2023 (arXiv 2310.11513). Judges no image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PromptError
from ..files import read_given
from .files import load_prompts, write_lines
from .records import COCO_NAMES, RELATIONS, TASKS, caption

if TYPE_CHECKING:
    from ..interfaces import Prompt

Record = dict[str, Any]

COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
COUNTS = (2, 3, 4)
_MIRRORED = {"right of": "left of", "below": "above"}


@dataclass(frozen=True)
class Words:
    """What prompts are made of.

    Attributes:
        names: object classes.
        colors: colour names.
        relations: out of left of, right of, above, below: nobody judges others.
        uncolored: names that get no colour ("a red person").

    Raises:
        PromptError: a word is empty or given twice, or a relation is unknown.
    """

    names: Sequence[str] = COCO_NAMES
    colors: Sequence[str] = COLORS
    relations: Sequence[str] = RELATIONS
    uncolored: Sequence[str] = ("person",)

    def __post_init__(self) -> None:
        for kind in ("names", "colors", "relations"):
            for word, times in Counter(getattr(self, kind)).items():
                if not word.strip() or not word.isprintable():
                    raise PromptError(f"{kind}: {word!r} is not a word")
                if times > 1:
                    raise PromptError(f"{kind}: {word!r} is given {times} times; once is enough")
        for relation in self.relations:
            if relation not in RELATIONS:
                known = ", ".join(RELATIONS)
                raise PromptError(f"relations: {relation!r} is not allowed; allowed are {known}")


def single_object(name: str) -> Record:
    """a photo of a bench"""
    return _record("single_object", _clause(name))


def two_object(first: str, second: str) -> Record:
    """a photo of a bench and a dog"""
    return _record("two_object", _clause(first), _clause(second))


def counting(name: str, count: int) -> Record:
    """a photo of two clocks, and not of three"""
    return _record("counting", _clause(name, count), exclude=[_clause(name, count + 1)])


def colors(color: str, name: str) -> Record:
    """a photo of a blue cow"""
    return _record("colors", _clause(name, color=color))


def position(name: str, relation: str, target: str) -> Record:
    """a photo of a dog right of a bench; the target is the first clause"""
    return _record("position", _clause(target), _clause(name, position=[relation, 0]))


def color_attr(color: str, name: str, other_color: str, other: str) -> Record:
    """a photo of a red apple and a green bus"""
    return _record("color_attr", _clause(name, color=color), _clause(other, color=other_color))


def _record(tag: str, *include: Record, **exclude: list[Record]) -> Record:
    record = {"tag": tag, "include": list(include), **exclude}
    return {**record, "prompt": caption(record)}


def _clause(name: str, count: int = 1, **more: Any) -> Record:
    return {"class": name, "count": count, **more}


def generate(
    per_task: int,
    *,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
    words: Words | None = None,
    not_in: Iterable[Prompt] = (),
) -> list[Record]:
    """Records of every task, drawn evenly from all that the words allow, without repeats.

    Args:
        per_task: how many of each task; fewer where the words allow no more.
        seed: the same seed, the same records; those of a task do not depend on the other tasks.
        tasks: which tasks, in which order.
        words: names, colours, relations; None = GenEval's.
        not_in: prompts to keep away from: no record has the text of one, or its composition (`composition`).

    Raises:
        PromptError: an unknown task, or a number or seed out of range.
    """
    words = words or Words()
    if per_task < 1 or seed < 0:
        raise PromptError(f"per_task, seed: {per_task}, {seed} are not allowed; at least 1 and 0")
    for task in tasks:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise PromptError(f"tasks: {task!r} is not allowed; allowed are {known}")
    avoided = list(not_in)
    texts = {prompt.text for prompt in avoided}
    seen = {composition(prompt.spec) for prompt in avoided if prompt.spec is not None}
    # at most two places of a space are one composition (a and b, b and a), so this many suffice
    wanted = 2 * (per_task + len(seen)) + len(texts)
    records: list[Record] = []
    for task in dict.fromkeys(tasks):
        found = 0
        for place in _places(task, words, wanted, seed):
            record = _at(place, task, words)
            key = composition(record)
            if found < per_task and key not in seen and record["prompt"] not in texts:
                seen.add(key)
                records.append(record)
                found += 1
    return records


def composition(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a record asks for, however it is put: "a and b" is "b and a", "a left of b" is "b right of a"."""
    clauses = spec["include"]
    objects = sorted((c["class"], c["count"], c.get("color") or "") for c in clauses)
    places = []
    for clause in clauses:
        if "position" in clause:
            relation, target = clause["position"]
            pair = (clause["class"], clauses[target]["class"])
            if relation in _MIRRORED:
                relation, pair = _MIRRORED[relation], pair[::-1]
            places.append((relation, *pair))
    return (*objects, *sorted(places))


def write_prompt_file(
    out: Path,
    *,
    per_task: int,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
    names: Path | None = None,
    colors: Sequence[str] = COLORS,
    relations: Sequence[str] = RELATIONS,
    not_in: Sequence[str] = (),
) -> dict[str, int]:
    """Generates a prompt file, one official record a line, and says how many of each task it holds.

    Args:
        out: the file; replaced if it exists.
        names: a file with one object name a line; None = GenEval's 80.
        not_in: prompt files to keep away from.
        per_task, seed, tasks, colors, relations: see `generate`.

    Raises:
        PromptError: a file or word is wrong, not a single prompt is left, or the disk refuses.
    """
    sources = [*map(Path, not_in), *([names] if names else [])]
    for source in sources:
        if source.exists() and out.exists() and out.samefile(source):
            raise PromptError(f"{out}: is also read from; write to another file")
    words = Words(_names(names) if names else COCO_NAMES, colors, relations)
    avoided = [prompt for path in not_in for prompt in load_prompts(path)]
    records = generate(per_task, seed=seed, tasks=tasks, words=words, not_in=avoided)
    if not records:
        raise PromptError(f"{out}: no prompt is left of these words and tasks; give more names")
    write_lines((json.dumps(record) + "\n" for record in records), out)
    held = Counter(record["tag"] for record in records)
    return {task: held[task] for task in tasks}


def _names(path: Path) -> list[str]:
    """The lines of a file of names."""
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text (UTF-8)"
        raise PromptError(f"{path}: cannot be read ({reason}); one name a line") from None
    return [line.strip() for line in lines if line.strip()]


def _shape(task: str, words: Words) -> tuple[int, ...]:
    """The lengths of a task's axes; of a pair without repeats the second axis is one shorter."""
    n, k, r = len(words.names), len(words.colors), len(words.relations)
    m = len([name for name in words.names if name not in words.uncolored])
    return {
        "single_object": (n,),
        "two_object": (n, n - 1),
        "counting": (n, len(COUNTS)),
        "colors": (k, m),
        "position": (n, n - 1, r),
        "color_attr": (m, m - 1, k, k - 1),
    }[task]


def _places(task: str, words: Words, wanted: int, seed: int) -> list[int]:
    """Up to `wanted` different places of a task's space, in random order."""
    total = int(np.prod([max(0, length) for length in _shape(task, words)], dtype=np.int64))
    rng = np.random.default_rng([seed, *task.encode()])
    found: list[int] = rng.choice(total, size=min(total, wanted), replace=False).tolist()
    return found


def _at(place: int, task: str, words: Words) -> Record:
    """The record at a place of a task's space."""
    at = [int(digit) for digit in np.unravel_index(place, _shape(task, words))]
    names, hues = words.names, words.colors
    painted = [name for name in names if name not in words.uncolored]

    def pair(first: int, second: int) -> tuple[int, int]:
        return first, second + (second >= first)

    if task == "single_object":
        return single_object(names[at[0]])
    if task == "counting":
        return counting(names[at[0]], COUNTS[at[1]])
    if task == "colors":
        return colors(hues[at[0]], painted[at[1]])
    a, b = pair(at[0], at[1])
    if task == "two_object":
        return two_object(names[a], names[b])
    if task == "position":
        return position(names[a], words.relations[at[2]], names[b])
    first, second = pair(at[2], at[3])
    return color_attr(hues[first], painted[a], hues[second], painted[b])
