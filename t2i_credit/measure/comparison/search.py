"""A small search of one key, the same for every method of a comparison: which values, its runs, what each method takes.

Which learning rate suits a method best is not what a comparison asks, yet it can decide it. So every method is trained
with the same values on seeds of their own, and goes into the comparison with the one under which its training reward
was the largest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ...config.files import key_value
from ...errors import ConfigError, RunError
from ..intervals import area_under, require_seeds, up_to
from .kind import Run, Say, curve
from .runs import check_runs, finish_runs, plan_runs

FIRST_SEED = 100  # those of a comparison count up from 0, unless it says otherwise
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
            words: "optim.lr=2.5e-4,4e-4"; commas within brackets belong to a value.
            seeds: runs of each method with each value.
            compared: seeds of the comparison, which the search must not have seen.

        Raises:
            UserError: the comparison has too few seeds for an interval.
            ConfigError: it says no key, fewer than two values, one twice, a key that cannot be searched, or seeds of
                the comparison.
        """
        require_seeds(len(compared))
        key, values = key_value(words)
        key = key.strip()
        found = tuple(value.strip() for value in re.split(r",(?![^\[]*\])", values or ""))
        if not (key and all(found)) or len(set(found)) != len(found) or len(found) < 2:
            raise ConfigError(
                f"--search: {words!r} is not allowed; KEY=VALUE,VALUE with at least two different values, as "
                "optim.lr=2.5e-4,4e-4"
            )
        if key in _OF_A_RUN:
            raise ConfigError(f"--search: {key} is each run's own; name a key of the method")
        if key == "tune.ema":
            raise ConfigError(
                f"--search: values of {key} are not to be told apart by the training reward, whose images it does not "
                "touch; name a key of the learning"
            )
        tried = range(FIRST_SEED, FIRST_SEED + seeds)
        if shared := sorted({*tried} & {*compared}):
            raise ConfigError(
                f"--search: seed {shared[0]} is one of the comparison's, and the search takes {tried[0]} to "
                f"{tried[-1]}; give another --first-seed"
            )
        return cls(key, found, tried)

    def override(self, value: str) -> str:
        """As on the command line."""
        return f"{self.key}={value}"

    def runs(
        self, recipes: Sequence[str], out: Path, base: str | None, overrides: Sequence[str]
    ) -> dict[str, list[Run]]:
        """{value: its runs, of every method with every seed}, in a folder of their own in that of the comparison.

        Raises:
            ConfigError: a wrong recipe, override or value; values that change what all recipes must share, or that
                cannot be told apart in a run's name.
            RunError: the folder holds other runs.
        """
        found = {
            value: plan_runs(
                recipes,
                self.seeds,
                out / "search",
                base,
                [*overrides, self.override(value)],
                suffix=self._mark(value),
            )
            for value in self.values
        }
        every = [run for runs in found.values() for run in runs]
        self._check_shared([runs[0] for runs in found.values()])  # within a value all recipes agree
        if len({run.path for run in every}) < len(every):
            raise ConfigError(
                f"--search: two of the values {', '.join(self.values)} give a run the same name; write them otherwise"
            )
        check_runs(every)
        return found

    def _mark(self, value: str) -> str:
        """What ends the names of the runs with a value."""
        return "-" + re.sub(r"[^\w.-]+", "-", self.key.rpartition(".")[2] + value, flags=re.ASCII)

    def _check_shared(self, runs: Sequence[Run]) -> None:
        """Raises ConfigError where runs with different values differ in model, prompt set, reward or budget."""
        first, *others = [run.kind.shared(run.config) for run in runs]
        for shared in others:
            if changed := [key for key in first if shared[key] != first[key]]:
                raise ConfigError(
                    f"--search: {self.key} changes {changed[0]}, which is the same for all runs of a comparison; name "
                    "a key of the method"
                )


def search_values(
    search: Search,
    runs: Mapping[str, Sequence[Run]],
    *,
    workers: int = 1,
    say: Say = lambda line: None,
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
    try:
        finish_runs(every, None, workers=workers, say=say)
    except RunError as error:
        raise RunError(f"{error}; a value that does not train is left out of --search") from error
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
