"""Methods compared over seeds: every run's numbers, paired differences with intervals, comparison.json, table, plots.

Learns about training from the run folders alone; runs.py makes them. The final score is that of an evaluation
on prompts' noise that no training saw; curves are of the strict training reward.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from ...errors import RunError
from ..intervals import (
    area_under,
    markdown_table,
    paired_difference,
    paired_ratio,
    prediction_interval,
    running_mean,
    samples_to_reach,
    t_interval,
    up_to,
    window_of,
    with_interval,
)
from .kind import EvaluationPlan, Run, curve, metrics_of
from .plots import sampled

FORMAT = 1
# Figures of a run that are compared by their difference; a kind may have more, one file of prompts has no held_out.
FIGURES = ("held_in", "held_out", "area", "final_reward", "reward_at_equal_samples")
_SCORES = {"train": "held_in", "heldout": "held_out"}
TRUTH = "truth/"  # live credit-truth metrics of a run begin so


def results(
    runs: Sequence[Run],
    evaluation: EvaluationPlan,
    *,
    baseline: str,
    forward_passes: Mapping[str, int],
) -> dict[str, Any]:
    """All numbers of finished runs; see `compare`."""
    methods = list(dict.fromkeys(run.method for run in runs))
    others = [method for method in methods if method != baseline]
    curves = [curve(run) for run in runs]
    target = fmean(
        _smooth(rewards)[-1]
        for run, (_, rewards) in zip(runs, curves, strict=True)
        if run.method == baseline
    )
    end = min(samples[-1] for samples, _ in curves)  # refills take more samples to the same step
    figures = [
        run_figures(run, course, evaluation, target, end)
        for run, course in zip(runs, curves, strict=True)
    ]
    by_method = {m: [f for f in figures if f["method"] == m] for m in methods}
    for found in by_method.values():
        found.sort(key=lambda f: f["seed"])
    kind, settings = runs[0].kind, runs[0].config
    keys = [key for key in (*FIGURES, *kind.figures) if key in figures[0]]
    return {
        "format": FORMAT,
        "base": settings.model.name,
        "seeds": sorted({run.seed for run in runs}),
        "steps": settings.train.steps,
        "samples_per_step": kind.samples_per_step(settings),
        "evaluation": vars(evaluation),
        "baseline": baseline,
        "target": target,
        "equal_samples": end,
        "methods": {
            method: _method(found, keys) | {"forward_passes": forward_passes[method]}
            for method, found in by_method.items()
        },
        "differences": [
            _pair(a, b, by_method, keys)  # the baseline last, so that they read "method - baseline"
            for a, b in itertools.combinations([*others, baseline], 2)
        ],
        "runs": figures,
    }


def _smooth(rewards: Sequence[float]) -> list[float]:
    """Mean training rewards of a tenth of the run each; the last is the final reward."""
    return running_mean(rewards, window_of(len(rewards)))


def run_figures(
    run: Run,
    course: tuple[Sequence[float], Sequence[float]],
    evaluation: EvaluationPlan,
    target: float,
    end: float,
) -> dict[str, Any]:
    """The numbers of one finished run.

    Args:
        run: the run.
        course: its `curve`.
        evaluation: what its scores are of.
        target: the training reward to reach.
        end: samples after which all runs are looked at alike; the area is that up to there.
    """
    samples, rewards = course
    smooth = _smooth(rewards)
    summaries = {}
    for split in evaluation.splits:
        value = evaluation.found(run.path, split)
        if value is None:
            raise RunError(f"{run.path}: has no evaluation of {split} prompts")
        summaries[split] = value["summary"]
    scores = {_SCORES[split]: summary["overall"]["correct"] for split, summary in summaries.items()}
    held_in = summaries["train"]
    lines = metrics_of(run)
    reached = samples_to_reach(samples, rewards, target, window_of(len(rewards)))
    truth: dict[str, list[float]] = {}
    for key, value in (entry for line in lines for entry in line.items()):
        if key.startswith(TRUTH) and value is not None:
            truth.setdefault(key, []).append(value)
    return {
        "method": run.method,
        "seed": run.seed,
        "run": run.path.name,
        **scores,
        **{key: held_in["overall"][key] for key in run.kind.figures},
        "tasks": {task: row["correct"] for task, row in held_in.items() if task != "overall"},
        "area": area_under(*up_to(samples, rewards, end)),
        "final_reward": smooth[-1],
        "reward_at_equal_samples": up_to(samples, smooth, end)[1][-1],
        "to_target": reached._asdict(),
        "samples": samples[-1],
        "samples_per_step": samples[-1] / len(samples),
        "seconds_per_step": median(line["time/step"] for line in lines),
        "truth": {key: fmean(values) for key, values in truth.items()},
    }


def _method(found: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> dict[str, Any]:
    """A method's numbers over its seeds."""
    summary: dict[str, Any] = {}
    for key in figures:
        values = [run[key] for run in found]
        known, new_seed = t_interval(values), prediction_interval(values)
        summary[key] = {"mean": known[0], "interval": known[1:], "new_seed": new_seed[1:]}
    tasks = found[0]["tasks"]
    summary["tasks"] = {t: t_interval([run["tasks"][t] for run in found]) for t in tasks}
    summary["to_target"] = {
        "median": median(run["to_target"]["samples"] for run in found),
        "censored": sum(run["to_target"]["censored"] for run in found),
        "runs": len(found),
    }
    summary["samples_per_step"] = fmean(run["samples_per_step"] for run in found)
    summary["seconds_per_step"] = median(run["seconds_per_step"] for run in found)
    summary["truth"] = {
        key: t_interval([run["truth"][key] for run in found])
        for key in found[0]["truth"]
        if all(key in run["truth"] for run in found)
    }
    return summary


def _pair(
    a: str, b: str, found: Mapping[str, Sequence[Mapping[str, Any]]], figures: Sequence[str]
) -> dict[str, Any]:
    """Paired differences of every figure over the seeds, and the ratio of samples to the target."""
    pair: dict[str, Any] = {"a": a, "b": b}
    for key in figures:
        ours, theirs = ([run[key] for run in found[method]] for method in (a, b))
        pair[key] = paired_difference(ours, theirs, (f"{a} above {b}", f"{b} above {a}"))._asdict()
    needed = [[run["to_target"]["samples"] for run in found[method]] for method in (a, b)]
    censored = [sum(run["to_target"]["censored"] for run in found[m]) for m in (a, b)]
    # how many times fewer samples a needs than b; for a censored run its end stands in
    speed = paired_ratio(needed[1], needed[0], (f"{a} faster", f"{b} faster"))
    pair["speed"] = speed._asdict() | {"censored": censored}
    return pair


# The table ----------------------------------------------------------------------------------------


def markdown(found: Mapping[str, Any]) -> str:
    """Two tables: methods, and paired differences; before them that of the search, if there was one."""
    seeds = found["seeds"]
    lines = [
        f"# Comparison on {found['base']}",
        "",
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}), {found['steps']} steps of "
        f"{found['samples_per_step']} {sampled(found)}. Means over seeds with 95% t-intervals; in parentheses the 95% "
        f"interval for a new seed. Target: {found['baseline']}'s final training reward, {found['target']:.3f}. "
        f"Area and reward at equal samples: up to and at {found['equal_samples']:,.0f}, where the shortest run ends.",
    ]
    tables = [method_rows(found), pair_rows(found)]
    if searched := found.get("search"):
        tried = ", ".join(map(str, searched["seeds"]))
        lines += [
            "",
            f"Each method has its own {searched['key']}: the one with the largest mean area up to "
            f"{searched['equal_samples']:,.0f} {sampled(found)} in a search before (seeds: {tried}).",
        ]
        tables.insert(0, search_rows(searched))
    for rows in tables:
        lines += ["", markdown_table(rows[0], (row.values() for row in rows))]
    return "\n".join([*lines, ""])


def method_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per method, for a person."""
    titles = {
        "held_out": "held-out [95%]",
        "pass_at_k": f"pass@{found['evaluation'].get('answers')} [95%]",
        "area": "area [95%]",
        "reward_at_equal_samples": "reward at equal samples",
    }
    rows = []
    for name, method in found["methods"].items():
        low, high = method["held_in"]["new_seed"]
        reached = method["to_target"]
        censored = reached["censored"]
        told = f"{reached['median']:,.0f}"
        told += f" ({censored} of {reached['runs']} runs never reached it)" if censored else ""
        truth = [
            f"{key.removeprefix(TRUTH)} {value[0]:.3f}" for key, value in method["truth"].items()
        ]
        shown = {
            key: with_interval(method[key]["mean"], *method[key]["interval"])
            for key in ("held_in", *titles)
            if key in method
        }
        held_in = shown.pop("held_in")
        if not math.isnan(low):
            held_in += f" ({low:.3f} to {high:.3f})"
        rows.append(
            {"method": name, "held-in [95%] (new seed)": held_in}
            | {titles[key]: value for key, value in shown.items()}
            | {
                "samples to target": told,
                "samples a step": f"{method['samples_per_step']:.0f}",
                "s a step": f"{method['seconds_per_step']:.2f}",
                "passes": str(method["forward_passes"]),
                "credit truth": ", ".join(truth) or "-",
            }
        )
    return rows


def pair_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per pair of methods, for a person; of samples to the target also how many runs never reached it."""
    runs = len(found["seeds"])
    titles = {
        "held_in": "held-in",
        "held_out": "held-out",
        "pass_at_k": f"pass@{found['evaluation'].get('answers')}",
        "area": "area",
        "reward_at_equal_samples": "reward at equal samples",
        "speed": "samples, times fewer",
    }
    return [
        {"pair": f"{pair['a']} - {pair['b']}"}
        | {title: _difference(pair[key], key, runs) for key, title in titles.items() if key in pair}
        for pair in found["differences"]
    ]


def _difference(row: Mapping[str, Any], key: str, runs: int) -> str:
    """Mean, interval, and what they say; of speed a ratio, which has no sign, and how many runs never got there."""
    style = ".2f" if key == "speed" else "+.3f"
    told = f"{with_interval(row['mean'], row['low'], row['high'], style)}, {row['words']}"
    ours, theirs = row.get("censored", (0, 0))
    if ours or theirs:
        told += f" (never reached by {ours} and {theirs} of {runs}: their end stands in)"
    return told


def search_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per method, for a person: the mean area of every value, and the one that was taken."""
    return [
        {"method": name}
        | {value: f"{fmean(areas):.3f}" for value, areas in row["areas"].items()}
        | {f"{found['key']} taken": row["chosen"]}
        for name, row in found["methods"].items()
    ]
