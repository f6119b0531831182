"""A small search of one key, the same for every method of a comparison: which values, its runs, what each method takes.

Which learning rate suits a method best is not what a comparison asks, yet it can decide it. So every method is trained
with the same values on seeds of their own, and goes into the comparison with the one under which it learned most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from .compare_kinds import load_recipe
from .compare_runs import Run, curve, finish_runs, plan_runs
from .compare_statistics import area_under, up_to
from .errors import ConfigError

FIRST_SEED = 100  # far from those of the comparison, which count up from 0
_OF_A_RUN = ("train.seed", "prompts.seed", "train.out", "train.name")


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        key: a key of the recipes.
        values: of the key, at least two, as text.
        seeds: of the runs with each value.
    """

    key: str
    values: tuple[str, ...]
    seeds: range

    @classmethod
    def of(cls, words: str, seeds: int, compared: range) -> Search:
        """Of KEY=VALUE,VALUE and a number of seeds.

        Args:
            words: "optim.lr=2.5e-4,4e-4".
            seeds: runs of each method with each value.
            compared: seeds of the comparison, which the search must not have seen.

        Raises:
            ConfigError: it says no key, fewer than two values, one twice, or seeds of the comparison.
        """
        key, equals, values = words.partition("=")
        found = tuple(value.strip() for value in values.split(","))
        if not (key and equals and all(found)) or len(set(found)) != len(found) or len(found) < 2:
            raise ConfigError(
                f"--tune: {words!r} is not allowed; KEY=VALUE,VALUE with at least two different values, as "
                "optim.lr=2.5e-4,4e-4"
            )
        if key in _OF_A_RUN:
            raise ConfigError(f"--tune: {key} is each run's own; name a key of the method")
        tried = range(FIRST_SEED, FIRST_SEED + seeds)
        if shared := sorted({*tried} & {*compared}):
            raise ConfigError(
                f"--tune: seed {shared[0]} is one of the comparison's; the search takes {tried[0]} to {tried[-1]}"
            )
        return cls(key, found, tried)

    def override(self, value: str) -> str:
        """As on the command line."""
        return f"{self.key}={value}"

    def runs(
        self,
        recipes: Sequence[str],
        out: Path,
        base: str | None = None,
        overrides: Sequence[str] = (),
    ) -> dict[str, list[Run]]:
        """{value: its runs, of every method with every seed}.

        Raises:
            ConfigError: a wrong recipe, override or value, or a key that all recipes must share.
        """
        for recipe in recipes:
            kind, config = load_recipe(recipe, [*overrides, self.override(self.values[0])])
            if shared := [key for key in kind.shared(config) if _overlap(key, self.key)]:
                raise ConfigError(
                    f"--tune: {shared[0]} is the same for all recipes of a comparison; name a key of the method"
                )
        return {
            value: plan_runs(
                recipes,
                self.seeds,
                out,
                base,
                [*overrides, self.override(value)],
                suffix="-" + re.sub(r"[^\w.-]+", "-", f"{self.key.rpartition('.')[2]}{value}"),
            )
            for value in self.values
        }


def _overlap(a: str, b: str) -> bool:
    """Whether one key is the other, or lies in it."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def tune(
    search: Search,
    runs: Mapping[str, Sequence[Run]],
    *,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains what is left of the search and says what each method takes; nothing is evaluated.

    Args:
        search: what is tried.
        runs: of `Search.runs`.
        workers: runs at a time.
        say: called with a line after each run.

    Returns:
        key, values, seeds, equal_samples, and methods: {name: {"areas": {value: one per seed}, "chosen": value}}. Area
        is that under the training reward up to where the shortest run of all ends; the largest mean is chosen, of
        equal ones the first.

    Raises:
        RunError: a run failed.
    """
    every = [run for of_value in runs.values() for run in of_value]
    finish_runs(every, None, workers=workers, say=say)
    curves = {run.path: curve(run) for run in every}
    end = min(samples[-1] for samples, _ in curves.values())
    methods: dict[str, Any] = {}
    for method in dict.fromkeys(run.method for run in every):
        areas = {
            value: [area_under(*up_to(*curves[r.path], end)) for r in found if r.method == method]
            for value, found in runs.items()
        }
        methods[method] = {"areas": areas, "chosen": max(areas, key=lambda v: fmean(areas[v]))}
    return {
        "key": search.key,
        "values": list(search.values),
        "seeds": list(search.seeds),
        "equal_samples": end,
        "methods": methods,
    }


def tuning_rows(tuned: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per method, for a person: the mean area of every value, and the one that was taken."""
    return [
        {"method": name}
        | {value: f"{fmean(areas):.3f}" for value, areas in found["areas"].items()}
        | {f"{tuned['key']} taken": found["chosen"]}
        for name, found in tuned["methods"].items()
    ]
