"""What the embedded worlds share: prompts with GenEval records over a world's words, held-out compositions, placed scenes.

A record is the official GenEval format: {"tag", "include", "exclude"?, "prompt"}. Some compositions are held out:
colour-class pairs and class-relation-class triples that occur in no held-in record and in no scene that is
drawn here, neither by intent nor by chance. Nothing here looks at an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, overload

import numpy as np

from ..errors import PromptError
from ..geneval import relative_position
from ..interfaces import Prompt
from ..prompts import generate
from ..prompts.records import NUMBERS, TASKS, caption, noun

Record = dict[str, Any]
Box = tuple[float, float, float, float]

INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SPLITS = ("train", "heldout")
_MAKERS: dict[str, Callable[..., Record]] = {task: getattr(generate, task) for task in TASKS}


class Records(Sequence[Record]):
    """The records of a task, made when they are asked for: each composition in each template."""

    def __init__(self, task: str, compositions: Sequence[tuple], templates: Sequence[str]) -> None:
        self.task, self.compositions, self.templates = task, compositions, templates

    def __len__(self) -> int:
        return len(self.compositions) * len(self.templates)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        which, template = divmod(int(index) % len(self), len(self.templates))
        record = _MAKERS[self.task](*self.compositions[which])
        return {**record, "prompt": caption(record, self.templates[template])}


@dataclass(frozen=True)
class Grammar:
    """The words of a world, and which of their compositions are held out.

    Attributes:
        names, colors: classes and colours.
        templates: how prompts begin; three words each.
        held_out_pairs: (colour, class).
        held_out_triples: (class, relation, class); the mirror image of each is held out with it.
        most: prompts of a task in a set that names no number, drawn from its seed; None = every one.
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]
    templates: tuple[str, ...]
    held_out_pairs: frozenset[tuple[str, str]]
    held_out_triples: frozenset[tuple[str, str, str]]
    most: int | None = None
    _found: dict[tuple[str, str], Records] = field(default_factory=dict, repr=False, compare=False)

    def template_of(self, record: Record) -> str:
        """The template that a record's prompt was made with."""
        return next(t for t in self.templates if record["prompt"].startswith(t))

    def is_held_out_triple(self, name: str, relation: str, target: str) -> bool:
        """Whether "name relation target" or its mirror image is held out."""
        triples = {(name, relation, target), (target, INVERSE[relation], name)}
        return bool(triples & self.held_out_triples)

    def is_held_out(self, record: Record) -> bool:
        """Whether a record names a held-out composition."""
        clauses = record["include"]
        if any((c.get("color"), c["class"]) in self.held_out_pairs for c in clauses):
            return True
        return any(
            self.is_held_out_triple(
                c["class"], c["position"][0], clauses[c["position"][1]]["class"]
            )
            for c in clauses
            if "position" in c
        )

    def _compositions(self, task: str) -> Iterator[tuple[tuple, bool]]:
        """What prompts/generate.py makes the records of a task of, whatever is held out, and whether it is."""
        pairs = list(itertools.permutations(self.names, 2))
        colored = list(itertools.product(self.names, self.colors))
        if task == "single_object":
            yield from (((name,), False) for name in self.names)
        elif task == "two_object":
            yield from ((pair, False) for pair in pairs)
        elif task == "counting":
            for name, count in itertools.product(self.names, range(1, len(NUMBERS) + 1)):
                yield (name, count), False
        elif task == "colors":
            yield from (((c, s), (c, s) in self.held_out_pairs) for s, c in colored)
        elif task == "position":
            for (a, b), relation in itertools.product(pairs, INVERSE):
                yield (b, relation, a), self.is_held_out_triple(b, relation, a)
        else:
            held = self.held_out_pairs
            for (s, c), (other, hue) in itertools.permutations(colored, 2):
                if s != other and c != hue:
                    yield (c, s, hue, other), (c, s) in held or (hue, other) in held

    def records(self, task: str, split: str = "train") -> Records:
        """Every record of a task ("train": held-in compositions, "heldout": the others), one per template.

        Only colors, position and color_attr have held-out records.

        Raises:
            PromptError: an unknown task or split.
        """
        if split not in SPLITS:
            raise PromptError(f"split: {split!r} is not a split; allowed: {', '.join(SPLITS)}")
        if task not in TASKS:
            raise PromptError(f"tasks: {task!r} is not a task; allowed: {', '.join(TASKS)}")
        if (task, split) not in self._found:
            kept = [c for c, held in self._compositions(task) if held == (split == "heldout")]
            self._found[task, split] = Records(task, kept, self.templates)
        return self._found[task, split]

    def words(self) -> list[str]:
        """Every word of every prompt, sorted."""
        # color_attr has those of colors and two_object
        found = {word for template in self.templates for word in template.split()}
        for task, split in itertools.product(TASKS[:-1], SPLITS):
            for record in self.records(task, split)[:: len(self.templates)]:
                found.update(record["prompt"].split())
        return sorted(found)

    @cached_property
    def _nouns(self) -> dict[str, tuple[str, str | None]]:
        """{"a red circle": (class, colour or None)} of all that can be asked for."""
        clauses = [{"class": n} for n in self.names]
        clauses += [{"class": n, "color": c} for n in self.names for c in self.colors]
        return {noun(clause): (clause["class"], clause.get("color")) for clause in clauses}

    @cached_property
    def _counted(self) -> dict[str, tuple[str, int]]:
        """{"two circles": (class, count)}."""
        every = [(n, k) for n in self.names for k in range(1, len(NUMBERS) + 1)]
        return {caption(generate.counting(*one), "").strip(): one for one in every}

    def known(self, text: str) -> Prompt | None:
        """The prompt of a text with its record, held-out ones too; None if it is none of this world's."""
        for template in self.templates:
            record = self._read(text.removeprefix(template + " "))
            if record is not None and caption(record, template) == text:
                return Prompt(text, spec={**record, "prompt": text})
        return None

    def _read(self, content: str) -> Record | None:
        """The record that a prompt without its template asks for."""
        if content in self._counted:
            return generate.counting(*self._counted[content])
        if content in self._nouns:
            name, color = self._nouns[content]
            return generate.colors(color, name) if color else generate.single_object(name)
        for link in ("and", *INVERSE):
            first, _, second = content.partition(f" {link} ")
            if first in self._nouns and second in self._nouns:
                (a, hue), (b, other) = self._nouns[first], self._nouns[second]
                if a == b or (hue is None) != (other is None):
                    return None
                if hue and other:
                    fits = link == "and" and hue != other
                    return generate.color_attr(hue, a, other, b) if fits else None
                return generate.two_object(a, b) if link == "and" else generate.position(a, link, b)
        return None

    def prompt_set(
        self,
        split: str = "train",
        tasks: Sequence[str] | None = None,
        *,
        per_task: int | None = None,
        seed: int = 0,
    ) -> list[Prompt]:
        """Distinct prompts, task by task; `per_task` of each drawn from `seed`, or `most` of each."""
        chosen: list[Prompt] = []
        wanted = self.most if per_task is None else per_task
        for task in tasks or TASKS:
            found: Sequence[Record] = self.records(task, split)
            if wanted is not None and wanted < len(found):
                order = np.random.default_rng([seed, TASKS.index(task)]).permutation(len(found))
                found = [found[i] for i in order[:wanted]]
            chosen += [Prompt(r["prompt"], spec=r) for r in found]
        return chosen

    def sample_record(self, rng: np.random.Generator, tasks: Sequence[str] = TASKS) -> Record:
        """A held-in record: a task, then one of its records, both uniformly."""
        found = self.records(tasks[int(rng.integers(len(tasks)))])
        return found[int(rng.integers(len(found)))]

    @cached_property
    def colors_for(self) -> dict[str, tuple[str, ...]]:
        """{class: the colours that it is drawn in}."""
        held = self.held_out_pairs
        return {s: tuple(c for c in self.colors if (c, s) not in held) for s in self.names}

    def any_color(self, name: str, rng: np.random.Generator) -> str:
        """A held-in colour of a class."""
        # the same draw as rng.choice, which takes ten times as long to look at its argument
        return self.colors_for[name][rng.integers(len(self.colors_for[name]))]


# Scenes -----------------------------------------------------------------------------------------------------------

_LEAK_THRESHOLD = 0.05  # half of GenEval's, which finds a relation sooner
_AXIS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
_TRIES = 30  # for each object, before the whole scene is tried again


class Placed(Protocol):
    """An object of a scene, as far as every world's have it."""

    @property
    def name(self) -> str: ...
    @property
    def shown(self) -> str | None: ...
    @property
    def box(self) -> Box: ...


C = TypeVar("C", str, str | None)
P = TypeVar("P", bound=Placed)


def arrange(
    grammar: Grammar,
    record: Record,
    rng: np.random.Generator,
    *,
    palette: Callable[[], Callable[[str], C]],
    place: Callable[[str, C, int], P],
    apart: Callable[[P, P], bool],
) -> tuple[P, ...]:
    """Objects that fulfil a held-in record and show nothing else.

    Args:
        palette: called for each try of a scene; gives the colour of a class where the record names none.
        place: class, colour and the number of objects to one of them, wherever it likes.
        apart: whether two objects leave each other enough room.

    Raises:
        PromptError: the record names a held-out composition, which is never drawn.
    """
    if grammar.is_held_out(record):
        raise PromptError(f"{record.get('prompt', record)!r} is held out; it is never drawn")
    kinds = [
        (c["class"], c.get("color"), i)
        for i, c in enumerate(record["include"])
        for _ in range(c["count"])
    ]
    while True:
        placed: list[P] = []
        owners: list[int] = []
        free_color = palette()
        for name, color, owner in kinds:
            free = free_color(name)
            for _ in range(_TRIES):
                obj = place(name, color or free, len(kinds))
                if all(apart(obj, other) for other in placed):
                    placed.append(obj)
                    owners.append(owner)
                    break
        if (
            len(placed) == len(kinds)
            and _fulfils(record, placed, owners)
            and not leaks(grammar, placed)
        ):
            return tuple(placed)


def _clearly(a: Box, relation: str, b: Box) -> bool:
    """Whether `a` stands in that relation to `b` and in no other: within 27 degrees of the axis."""
    dx, dy = _AXIS[relation]
    x, y = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    along = x * dx + y * dy
    across = abs(x * dy) + abs(y * dx)
    return along > 0 and across <= 0.5 * along


def leaks(grammar: Grammar, scene: Sequence[Placed]) -> bool:
    """Whether a held-out pair or triple stands in the scene, by GenEval's own relation rule with a margin: boxes that
    a detector finds are up to a pixel tighter than the objects' own."""
    if any((o.shown, o.name) in grammar.held_out_pairs for o in scene):
        return True
    return any(
        grammar.is_held_out_triple(a.name, relation, b.name)
        for a, b in itertools.combinations(scene, 2)  # mirror images are looked up as well
        if a.name != b.name
        for relation in relative_position(a.box, b.box, position_threshold=_LEAK_THRESHOLD)
    )


def _fulfils(record: Record, placed: Sequence[Placed], owners: Sequence[int]) -> bool:
    for i, clause in enumerate(record["include"]):
        if "position" in clause:
            relation, target = clause["position"]
            a, b = placed[owners.index(i)], placed[owners.index(target)]
            if not _clearly(a.box, relation, b.box):
                return False
    return True
