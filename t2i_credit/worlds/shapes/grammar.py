"""Prompts over coloured shapes with their GenEval records, and the scenes that fulfil them.

A record is the official GenEval format: {"tag", "include", "exclude"?, "prompt"}. Some compositions are held out:
colour-shape pairs and shape-relation-shape triples that occur in no held-in record and in no scene that is
drawn here, neither by intent nor by chance. Nothing here looks at an image.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ...errors import PromptError
from ...geneval import relative_position
from ...interfaces import Prompt
from ...prompts import generate
from ...prompts.records import NUMBERS, TASKS, caption
from .scene import COLORS, SHAPES, SIZE, Object, Scene

Record = dict[str, Any]

INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
TEMPLATES = (
    *("a photo of", "a picture of", "an image of", "a drawing of", "a painting of"),
    *("an illustration of", "a sketch of", "a poster of", "a card with", "a page with"),
)
HELD_OUT_PAIRS = frozenset(
    {
        ("green", "circle"),
        ("red", "square"),
        ("purple", "triangle"),
        ("blue", "cross"),
        ("orange", "ring"),
    }
)
# One direction of each triple; its mirror image (square below circle, ...) is held out with it.
HELD_OUT_TRIPLES = frozenset(
    {
        ("circle", "above", "square"),
        ("triangle", "left of", "circle"),
        ("cross", "right of", "square"),
        ("ring", "below", "triangle"),
        ("ring", "left of", "cross"),
        ("circle", "below", "cross"),
        ("square", "right of", "triangle"),
        ("square", "below", "ring"),
    }
)


def template_of(record: Record) -> str:
    """The template that a record's prompt was made with."""
    return next(t for t in TEMPLATES if record["prompt"].startswith(t))


def _every_record(task: str) -> Iterable[Record]:
    """Every record of a task in the first template, whatever is held out."""
    if task not in TASKS:
        raise PromptError(f"tasks: {task!r} is not a task; allowed: {', '.join(TASKS)}")
    pairs = list(itertools.permutations(SHAPES, 2))
    colored = list(itertools.product(SHAPES, COLORS))
    every: dict[str, Iterable[Record]] = {
        "single_object": map(generate.single_object, SHAPES),
        "two_object": itertools.starmap(generate.two_object, pairs),
        "counting": (generate.counting(s, n + 1) for s in SHAPES for n in range(len(NUMBERS))),
        "colors": (generate.colors(c, s) for s, c in colored),
        "position": (generate.position(b, r, a) for a, b in pairs for r in INVERSE),
        "color_attr": (
            generate.color_attr(c, s, other_c, other_s)
            for (s, c), (other_s, other_c) in itertools.permutations(colored, 2)
            if s != other_s and c != other_c
        ),
    }
    return every[task]


def is_held_out_triple(shape: str, relation: str, target: str) -> bool:
    """Whether "shape relation target" or its mirror image is held out."""
    triples = {(shape, relation, target), (target, INVERSE[relation], shape)}
    return bool(triples & HELD_OUT_TRIPLES)


def is_held_out(record: Record) -> bool:
    """Whether a record names a held-out composition."""
    clauses = record["include"]
    if any((c.get("color"), c["class"]) in HELD_OUT_PAIRS for c in clauses):
        return True
    return any(
        is_held_out_triple(c["class"], c["position"][0], clauses[c["position"][1]]["class"])
        for c in clauses
        if "position" in c
    )


@cache
def _records(task: str, split: str) -> tuple[Record, ...]:
    if split not in ("train", "heldout"):
        raise PromptError(f"split: {split!r} is not a split; allowed: train, heldout")
    kept = (r for r in _every_record(task) if is_held_out(r) == (split == "heldout"))
    return tuple({**r, "prompt": caption(r, t)} for r in kept for t in TEMPLATES)


def records(task: str, split: str = "train") -> list[Record]:
    """Every record of a task ("train": held-in compositions, "heldout": the others), one per template.

    Only colors, position and color_attr have held-out records.
    """
    return copy.deepcopy(list(_records(task, split)))


def prompt_set(
    split: str = "train",
    tasks: Sequence[str] | None = None,
    *,
    per_task: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Distinct prompts, task by task; `per_task` of each drawn from `seed`, or every one that there is."""
    chosen: list[Prompt] = []
    for task in tasks or TASKS:
        found = records(task, split)
        if per_task is not None and per_task < len(found):
            order = np.random.default_rng([seed, TASKS.index(task)]).permutation(len(found))
            found = [found[i] for i in order[:per_task]]
        chosen += [Prompt(r["prompt"], spec=r) for r in found]
    return chosen


@cache
def known_prompts() -> dict[str, Prompt]:
    """{text: prompt with its record} of every prompt of the world, held-out ones too."""
    return {prompt.text: prompt for s in ("train", "heldout") for prompt in prompt_set(s)}


def sample_record(rng: np.random.Generator, tasks: Sequence[str] = TASKS) -> Record:
    """A held-in record: a task, then one of its records, both uniformly."""
    found = _records(tasks[int(rng.integers(len(tasks)))], "train")
    return copy.deepcopy(found[rng.integers(len(found))])


# Scenes -----------------------------------------------------------------------------------------------------------

_RADII = {1: (7.0, 11.0), 2: (6.5, 9.0), 3: (6.2, 7.6), 4: (6.2, 7.3)}
_GAP = 3.0  # pixels between boxes, so that objects stay apart after the image tokenizer
_LEAK_THRESHOLD = 0.05  # half of GenEval's, which finds a relation sooner
_AXIS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def _apart(a: Object, b: Object) -> bool:
    reach = a.radius + b.radius + _GAP
    return abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach


def _clearly(a: Object, relation: str, b: Object) -> bool:
    """Whether `a` stands in that relation to `b` and in no other: within 27 degrees of the axis."""
    dx, dy = _AXIS[relation]
    along = (a.x - b.x) * dx + (a.y - b.y) * dy
    across = abs((a.x - b.x) * dy) + abs((a.y - b.y) * dx)
    return along > 0 and across <= 0.5 * along


def _leaks(scene: Sequence[Object]) -> bool:
    """Whether a held-out pair or triple stands in the scene, by GenEval's own relation rule with a margin: boxes that
    a detector finds are up to a pixel tighter than the objects' own."""
    if any((o.color, o.shape) in HELD_OUT_PAIRS for o in scene):
        return True
    return any(
        is_held_out_triple(a.shape, relation, b.shape)
        for a, b in itertools.combinations(scene, 2)  # mirror images are looked up as well
        if a.shape != b.shape
        for relation in relative_position(a.box, b.box, position_threshold=_LEAK_THRESHOLD)
    )


_COLORS_FOR = {s: tuple(c for c in COLORS if (c, s) not in HELD_OUT_PAIRS) for s in SHAPES}


def _any_color(shape: str, rng: np.random.Generator) -> str:
    # the same draw as rng.choice, which takes ten times as long to look at its argument
    return _COLORS_FOR[shape][rng.integers(len(_COLORS_FOR[shape]))]


def draw(record: Record, rng: np.random.Generator) -> Scene:
    """A scene that fulfils a held-in record and shows nothing else.

    Raises:
        PromptError: the record names a held-out composition, which is never drawn.
    """
    if is_held_out(record):
        raise PromptError(f"{record.get('prompt', record)!r} is held out; it is never drawn")
    wanted = [(clause, i) for i, clause in enumerate(record["include"])]
    kinds = [(c["class"], c.get("color"), i) for c, i in wanted for _ in range(c["count"])]
    low, high = _RADII[len(kinds)]
    one_color = rng.random() < 0.5
    while True:
        placed: list[Object] = []
        owners: list[int] = []
        shared = {s: _any_color(s, rng) for s in SHAPES}
        for shape, color, owner in kinds:
            free = shared[shape] if one_color else _any_color(shape, rng)
            for _ in range(30):
                r = float(rng.uniform(low, high))
                x, y = rng.uniform(r + 1, SIZE - r - 1, size=2).tolist()
                obj = Object(shape, color or free, x, y, r)
                if all(_apart(obj, other) for other in placed):
                    placed.append(obj)
                    owners.append(owner)
                    break
        if len(placed) == len(kinds) and _fulfils(record, placed, owners) and not _leaks(placed):
            return Scene(tuple(placed))


def _fulfils(record: Record, placed: Sequence[Object], owners: Sequence[int]) -> bool:
    for i, clause in enumerate(record["include"]):
        if "position" in clause:
            relation, target = clause["position"]
            a, b = placed[owners.index(i)], placed[owners.index(target)]
            if not _clearly(a, relation, b):
                return False
    return True
