"""A comparison by name: recipes, seeds and a base model to runs, their plan, their results. The numbers are results.py's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import ConfigError
from ...run_folder.atomic import make_folder, write_atomic, write_json
from ..intervals import require_seeds
from .kind import EvaluationPlan, Run, Say, curve
from .plots import draw
from .results import markdown, results
from .runs import check_runs, finish_runs, plan_runs
from .search import Search, search_values

TIMED_STEP, TIMED_STEPS = 2, 3  # the first step warms up, the last one keeps samples


def runs_of(
    recipes: Sequence[str],
    *,
    seeds: int,
    first_seed: int,
    out: Path,
    base: str | None,
    overrides: Sequence[str],
    own: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ignored: str | None = None,
) -> list[Run]:
    """Every run of a comparison; `own` are overrides of a method alone, of the key `ignored` the folder may hold others.

    Raises:
        UserError: too few seeds, recipes that cannot be compared, or a folder that holds other runs.
    """
    require_seeds(seeds)
    runs = plan_runs(recipes, range(first_seed, first_seed + seeds), out, base, overrides, own=own)
    check_runs(runs, ignored)
    return runs


def search_runs(
    search: Search,
    tries: Mapping[str, Sequence[Run]],
    *,
    evaluation: EvaluationPlan,
    baseline: str | None = None,
    workers: int = 1,
    say: Say = lambda line: None,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Trains what is left of a search: what it found (see `search_values`), and {method: its overrides}.

    Args:
        search: what is tried.
        tries: of `Search.runs`.
        evaluation, baseline, workers, say: of the comparison that comes after it; what would refuse it is said first.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    baseline_of(tries[search.values[0]], baseline)
    for of_value in tries.values():
        _ready(of_value, evaluation)
    found = search_values(search, tries, workers=workers, say=say)
    chosen = {name: row["chosen"] for name, row in found["methods"].items()}
    return found, {name: [search.override(value)] for name, value in chosen.items()}


def baseline_of(runs: Sequence[Run], baseline: str | None) -> str:
    """The method that sets the target: the one that was named, else grpo, else the first.

    Raises:
        ConfigError: it is none of the methods.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    if baseline is None:
        return "grpo" if "grpo" in methods else methods[0]
    if baseline not in methods:
        raise ConfigError(f"--baseline: {baseline!r} is not compared; {', '.join(methods)} are")
    return baseline


def compare_runs(
    runs: Sequence[Run],
    *,
    evaluation: EvaluationPlan,
    baseline: str | None = None,
    workers: int = 1,
    say: Say = lambda line: None,
    searched: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Finishes all runs and writes comparison.json, comparison.md and comparison.png into their folder.

    Args:
        runs: of `plan_runs`.
        evaluation: how the final models are evaluated.
        baseline: the method whose final reward is the target of the others, see `baseline_of`.
        workers: runs at a time.
        say: called with a line after each run.
        searched: what a search before it found, which is kept beside the rest (see search.py).

    Returns:
        the content of comparison.json.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    target = baseline_of(runs, baseline)
    methods = _ready(runs, evaluation)
    passes = {method: run.kind.passes(run.config) for method, run in methods.items()}
    check_runs(runs)
    finish_runs(runs, evaluation, workers=workers, say=say)
    found = results(runs, evaluation, baseline=target, forward_passes=passes)
    found |= {"search": searched} if searched else {}
    folder = runs[0].path.parent
    curves = {
        method: [curve(run) for run in runs if run.method == method] for method in found["methods"]
    }
    write_atomic(folder / "comparison.png", draw(found, curves))
    write_atomic(folder / "comparison.md", markdown(found).encode())
    write_json(folder / "comparison.json", found)
    return found


def _ready(runs: Sequence[Run], evaluation: EvaluationPlan) -> dict[str, Run]:
    """Checks what can be checked before a run begins, makes the folder; {method: a run of it}.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    methods = _one_of_each(runs)
    for run in methods.values():
        run.kind.check(run.config, evaluation)
    make_folder(runs[0].path.parent)
    return methods


def plan_rows(runs: Sequence[Run], workers: int) -> tuple[list[dict[str, str]], float]:
    """One row per run with its expected time, from a timed step of each method, and the hours of all that is left.

    Evaluations are not counted, nor what runs side by side take from each other.
    """
    seconds = {method: timed_step(run) for method, run in _one_of_each(runs).items()}
    rows, total = [], 0.0
    for run in runs:
        left = run.steps_left()
        needed = left * seconds[run.method]
        total += needed
        rows.append(
            {
                "run": run.path.name,
                "state": run.state(),
                "steps left": str(left),
                "s a step": f"{seconds[run.method]:.2f}",
                "minutes left": f"{needed / 60:.1f}",
            }
        )
    return rows, total / 3600 / max(1, min(workers, len(runs)))


def timed_step(run: Run) -> float:
    """Seconds of one training step, measured in a run that is thrown away."""
    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run.kind.train(
            run.kind.short(run.config, steps=TIMED_STEPS, out=folder),
            report=lambda step, metrics: seconds.update({step: metrics["time/step"]}),
            warn=lambda line: None,
        )
    return seconds[TIMED_STEP]


def _one_of_each(runs: Sequence[Run]) -> dict[str, Run]:
    """{method: a run of it}."""
    return {run.method: run for run in reversed(runs)}
