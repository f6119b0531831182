"""Which runs are seeds of one method, and what they show together. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ..config.files import dotted
from ..errors import RunError, UserError
from ..heatmap.text import printable
from ..measure.intervals import t_interval
from ..run_folder.reader import RunReader
from .figures import SERIES

# in which seeds of one method may differ
SEED_KEYS = {
    "train.seed",
    "prompts.seed",
    "train.name",
    "train.out",
    "train.threads",
    "train.trackers",
}
DASHES = ("solid", "dash", "dot")
LONGEST_VALUE = 60  # letters of a configuration's value that are shown
_SEED_ENDING = re.compile(r"[-_. ]*(seed|s)?[-_]?\d*$")

Scores = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """Runs whose configurations differ in nothing but the seed, at least one.

    Attributes:
        name: the run's; of several the first one's without its seed.
        seeds: the runs.
    """

    name: str
    seeds: tuple[RunReader, ...]

    def evaluations(self) -> dict[str, Scores]:
        """{evaluation: {task: {correct, low, high}}}; of several seeds the mean and its 95% t-interval."""
        found: dict[str, list[Scores]] = {}
        for reader in self.seeds:
            for name in reader.evaluations():
                try:
                    summary = reader.evaluation(name)["summary"]
                    scores = {task: dict(row) for task, row in summary.items()}
                    _ = [float(row["correct"]) for row in scores.values()]
                except (UserError, KeyError, TypeError, ValueError, AttributeError):
                    continue  # the evaluation tab says what is wrong with it
                found.setdefault(name, []).append(scores)
        return {name: _over_seeds(each) for name, each in found.items()}


def methods_of(readers: Sequence[RunReader]) -> list[Method]:
    """The runs by method, in their order; a run whose configuration cannot be read is a method of its own."""
    groups: dict[str, dict[Any, RunReader]] = {}
    for reader in readers:
        try:
            settings = dotted(reader.config())
        except UserError:
            settings = {"": reader.path.name}
        key = repr(
            sorted((k, v) for k, v in settings.items() if k not in SEED_KEYS and v is not None)
        )
        if seed_of(reader) in groups.get(key, {}):  # the same run again is no further seed
            key += reader.path.name
        groups.setdefault(key, {})[seed_of(reader)] = reader
    methods: dict[str, Method] = {}
    for each in groups.values():
        names = [reader.path.name for reader in each.values()]
        name = _name_of(names)
        name = f"{name} from {names[0]}" if name in methods else name
        methods[name] = Method(name, tuple(each.values()))
    return list(methods.values())


def line_styles(methods: Sequence[Method]) -> dict[str, dict[str, Any]]:
    """{method: colour and dash of its lines}, the same in every chart; dashes tell apart what shares a colour.

    The name of a method's oldest run says which colour it would have; one that an older method has taken leaves it the next
    free one. So a method keeps its colour, wherever in the list a newer one is added, and mostly when others are taken away.
    """
    free: list[str] = []
    styles = {}
    oldest = {method.name: min(map(_age, method.seeds)) for method in methods}
    for i, method in enumerate(sorted(methods, key=lambda one: oldest[one.name])):
        free = free or list(SERIES)
        wanted = crc32(oldest[method.name][1].encode()) % len(SERIES)
        colour = min(free, key=lambda one: (SERIES.index(one) - wanted) % len(SERIES))
        free.remove(colour)
        styles[method.name] = {"color": colour, "dash": DASHES[i // len(SERIES) % len(DASHES)]}
    return styles


def _age(reader: RunReader) -> tuple[str, str]:
    """(when the run was started first, its name); the oldest first, those that nobody knows before all."""
    try:
        started = reader.environment().get("started")
    except UserError:
        started = None
    return str(started or ""), reader.path.name


def differences(methods: Sequence[Method]) -> dict[str, list[str]]:
    """{key: its value in each method's configuration} of the keys in which they differ; "" where a method has none, or cannot
    be read, or the key does not apply: those of the critic where the credit has none."""
    settings: list[dict[str, Any]] = []
    for method in methods:
        try:
            found = dotted(method.seeds[0].config())
        except UserError:
            found = {}
        if found.get("credit.name") != "value":
            found = {key: v for key, v in found.items() if not key.startswith("critic.")}
        settings.append(found)
    keys = dict.fromkeys(key for one in settings for key in one if key not in SEED_KEYS)
    rows = {key: [_shown(one.get(key)) for one in settings] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _shown(value: Any) -> str:
    text = "" if value is None else printable(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def seed_of(reader: RunReader) -> int | None:
    """The run's seed; None if it is unknown."""
    try:
        seed = reader.config()["train"]["seed"]
    except (RunError, KeyError, TypeError):
        return None
    return seed if isinstance(seed, int) else None


def _name_of(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{_SEED_ENDING.sub('', names[0]) or names[0]}, {len(names)} seeds"


def _over_seeds(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> Scores:
    if len(scores) == 1:
        return {task: dict(row) for task, row in scores[0].items()}
    tasks = [task for task in scores[0] if all(task in seed for seed in scores)]
    found = {}
    for task in tasks:
        mean, low, high = t_interval([float(seed[task]["correct"]) for seed in scores])
        found[task] = {"correct": mean, "low": max(low, 0.0), "high": min(high, 1.0)}
    return found
