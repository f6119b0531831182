"""Scores with intervals: means by task, bootstrap over prompts, how much samples differ. Pure functions on numbers.

Shapes: P prompts, G images of each, T image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .geneval import TASKS

RESAMPLES = 2000
LEVEL = 0.95


def token_disagreement(tokens: NDArray[np.integer]) -> list[float | None]:
    """How different the samples of each prompt are: the fraction of positions at which two of them differ.

    Args:
        tokens: (P, G, T).

    Returns:
        (P) means over the G (G - 1) / 2 pairs, in [0, 1]; None where G is 1.
    """
    group = tokens.shape[1]
    if group < 2:
        return [None] * len(tokens)
    differs = (tokens[:, :, None] != tokens[:, None]).mean((1, 2, 3))  # each sample with itself too
    return [float(share) for share in differs * group / (group - 1)]


def by_task(tags: Sequence[str], values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Splits values (P) by the tasks of their prompts: the official tasks first, in their order."""
    given = list(dict.fromkeys(tags))
    order = [task for task in TASKS if task in given] + [t for t in given if t not in TASKS]
    labels = np.array(tags)
    return {task: values[labels == task] for task in order}


def task_intervals(
    values: Mapping[str, NDArray[np.float64]], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of every task and of "overall", the mean over tasks, by bootstrap over prompts.

    Prompts are resampled within each task, and "overall" is the mean of the tasks' resampled means, draw by draw.
    Low and high are the 2.5% and 97.5% quantiles. Where all prompts of a task have one value the interval has no
    width: resampling cannot tell what more prompts would show.

    Args:
        values: {task: one number per prompt}.
        resamples: how many draws.
        seed: of the draws; those of a task do not depend on the other tasks.
    """
    means = task_means(values)
    draws = {}
    for task, numbers in values.items():
        rng = np.random.default_rng([seed, *task.encode()])
        picks = rng.integers(len(numbers), size=(resamples, len(numbers)))
        draws[task] = numbers[picks].mean(1)
    draws["overall"] = np.mean(list(draws.values()), axis=0)
    tail = (1 - LEVEL) / 2
    ends = {task: np.quantile(drawn, [tail, 1 - tail]).tolist() for task, drawn in draws.items()}
    return {task: (means[task], *ends[task]) for task in means}


def task_means(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The mean of every task and, as "overall", the mean over tasks."""
    means = {task: float(numbers.mean()) for task, numbers in values.items()}
    return {**means, "overall": sum(means.values()) / len(means)}


def best_cell(table: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The cell of the highest overall score, of equals the first. The best of many flatters itself: a fair figure
    for it comes from another seed."""
    return max(table, key=lambda cell: cell["overall"])
