"""How sure is a number? Intervals over prompts, repeats and seeds, what the curves of several seeds show, and how such
numbers are written for a person.

Pure functions on numbers. A seed decides prompts and noise, so runs of one seed under two methods are a pair.
Shapes: P prompts, G samples of each, B = P*G samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ..errors import UserError

LEVEL = 0.95
RESAMPLES = 2000
MEDIAN_RESAMPLES = 10_000  # a median takes few values, and so moves in jumps
NO_DIFFERENCE = "no difference shown"

Numbers = NDArray[np.float64]
Interval = list[float]  # [estimate, low, high]; nan where there is no such number


def per_prompt(values: NDArray[Any], group_size: int, used: ArrayLike = True) -> Numbers:
    """(B,) to the mean of each prompt's samples (P,), nan where there is none.

    Samples that are nan, or not `used` (B,), are left out.
    """
    groups = np.asarray(values, dtype=np.float64).reshape(-1, group_size)
    known = np.isfinite(groups) & np.broadcast_to(used, len(values)).reshape(groups.shape)
    total = np.where(known, groups, 0.0).sum(1)
    return np.divide(total, known.sum(1), out=np.full(len(groups), np.nan), where=known.any(1))


def bootstrap_interval(values: Numbers) -> Interval:
    """The mean over prompts (P,), nan left out, and its 95% interval by bootstrap over prompts."""
    return statistic_interval(lambda v: v.mean(-1), values)


def ratio_interval(above: Numbers, below: Numbers) -> Interval:
    """mean(above) / mean(below) over the prompts that have both, and its 95% bootstrap interval.

    A resample whose mean of `below` is not positive has no ratio; where more than 2.5% have none, nothing is known
    of the upper end, which is then infinite.
    """
    return statistic_interval(_ratio, above, below)


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    level = below.mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(level > 0, above.mean(-1) / level, np.inf)


def statistic_interval(statistic: Callable[..., Numbers], *columns: Numbers) -> Interval:
    """[estimate, low, high] of a statistic of paired columns (P,), each taken along the last axis."""
    rows = np.stack(columns)
    rows = rows[:, np.isfinite(rows).all(0)]
    if not rows.shape[1]:
        return [math.nan] * 3
    drawn = statistic(*rows[:, _picks(np.random.default_rng(0), rows.shape[1], RESAMPLES)])
    return [float(statistic(*rows)), *_ends(drawn, method="inverted_cdf")]


def median_interval(values: Sequence[float]) -> list[float]:
    """95% percentile bootstrap interval of the median: [low, high]. The same values give the same interval."""
    given = np.asarray(values, dtype=float)
    picks = _picks(np.random.default_rng(0), len(given), MEDIAN_RESAMPLES)
    return [*_ends(np.median(given[picks], axis=1))]


def task_intervals(
    values: Mapping[str, Numbers], *, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of every task and of "overall", the mean over tasks, by bootstrap over prompts.

    Prompts are resampled within each task, and "overall" is the mean of the tasks' resampled means, draw by draw.
    Low and high are the 2.5% and 97.5% quantiles. Where all prompts of a task have one value the interval has no
    width: resampling cannot tell what more prompts would show.

    Args:
        values: {task: one number per prompt}.
        seed: of the draws; those of a task do not depend on the other tasks.
    """
    means = task_means(values)
    draws = {}
    for task, numbers in values.items():
        rng = np.random.default_rng([seed, *task.encode()])
        draws[task] = numbers[_picks(rng, len(numbers), RESAMPLES)].mean(1)
    draws["overall"] = np.mean(list(draws.values()), axis=0)
    return {task: (means[task], *_ends(drawn)) for task, drawn in draws.items()}


def task_means(values: Mapping[str, Numbers]) -> dict[str, float]:
    """The mean of every task and, as "overall", the mean over tasks."""
    means = {task: float(numbers.mean()) for task, numbers in values.items()}
    return {**means, "overall": sum(means.values()) / len(means)}


def _picks(rng: np.random.Generator, count: int, resamples: int) -> NDArray[np.int64]:
    """(resamples, count) places, drawn with replacement."""
    return rng.integers(count, size=(resamples, count))


def _ends(drawn: Numbers, method: Any = "linear") -> tuple[float, float]:
    """(low, high): what a share LEVEL of the resampled figures lies between."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], method=method)
    return float(low), float(high)


class Difference(NamedTuple):
    """Mean of the paired differences a - b, its 95% interval, and what it says in words."""

    mean: float
    low: float
    high: float
    words: str


class Reached(NamedTuple):
    """Samples until a curve reached a target; `censored`: it never did, and `samples` is where it ended."""

    samples: float
    censored: bool


def require_seeds(seeds: int) -> None:
    """Raises UserError where there are too few seeds for an interval."""
    if seeds < 2:
        raise UserError(f"--seeds: {seeds} is not allowed; an interval over seeds takes at least 2")


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high), the 95% t-interval of the mean over seeds."""
    return _around(values, 1.0 / math.sqrt(len(values)))


def prediction_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) in which one new seed falls with 95% probability, if seeds are normally distributed."""
    return _around(values, math.sqrt(1.0 + 1.0 / len(values)))


def _around(values: Sequence[float], width: float) -> tuple[float, float, float]:
    """mean +- t(n - 1) * standard deviation * width."""
    require_seeds(len(values))
    given = np.asarray(values, dtype=float)
    mean, spread = float(given.mean()), float(given.std(ddof=1))
    half = float(stdtrit(len(given) - 1, (1 + LEVEL) / 2)) * spread * width
    return mean, mean - half, mean + half


def paired_difference(a: Sequence[float], b: Sequence[float], words: tuple[str, str]) -> Difference:
    """How much the first method is above the second, over the seeds that both ran.

    Args:
        a, b: one number per seed, in the same order.
        words: what an interval above 0 says, and one below 0.
    """
    assert len(a) == len(b), (len(a), len(b))
    mean, low, high = t_interval([x - y for x, y in zip(a, b, strict=True)])
    if low <= 0 <= high:
        return Difference(mean, low, high, NO_DIFFERENCE)
    return Difference(mean, low, high, words[0] if low > 0 else words[1])


def paired_ratio(a: Sequence[float], b: Sequence[float], words: tuple[str, str]) -> Difference:
    """Geometric mean of the ratios a / b with its 95% t-interval (of the logarithms); words for above and below 1."""
    found = paired_difference([math.log(x) for x in a], [math.log(x) for x in b], words)
    mean, low, high = (math.exp(value) for value in (found.mean, found.low, found.high))
    return Difference(mean, low, high, found.words)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Means of the last `window` values; at the beginning of as many as there are."""
    return [fmean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def window_of(steps: int) -> int:
    """How many steps a running mean takes together: a tenth of the run."""
    return max(1, steps // 10)


def area_under(samples: Sequence[float], rewards: Sequence[float]) -> float:
    """Mean height of the reward curve over the samples, by trapezoids; of a single step its reward."""
    if len(samples) == 1:
        return float(rewards[0])
    return float(np.trapezoid(rewards, samples)) / (samples[-1] - samples[0])


def up_to(
    samples: Sequence[float], values: Sequence[float], end: float
) -> tuple[list[float], list[float]]:
    """A curve up to `end` samples, where it ends between two steps, linearly interpolated."""
    known = [place for place, count in enumerate(samples) if count < end]
    last = float(np.interp(end, samples, values))
    return [*(samples[i] for i in known), float(end)], [*(values[i] for i in known), last]


def samples_to_reach(
    samples: Sequence[float], rewards: Sequence[float], target: float, window: int
) -> Reached:
    """Samples after which the mean reward of the last `window` steps first is at least `target`.

    Looked for from the first whole window on: before it a lucky step would count.
    """
    smooth = running_mean(rewards, window)
    for i in range(window - 1, len(smooth)):
        if smooth[i] >= target:
            return Reached(float(samples[i]), False)
    return Reached(float(samples[-1]), True)


# For a person -----------------------------------------------------------------------------------------------------


def with_interval(estimate: float, low: float, high: float, style: str = ".3f") -> str:
    """ "0.512 [0.401, 0.623]"."""
    return f"{estimate:{style}} [{low:{style}}, {high:{style}}]"


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, without a line end."""
    head = list(head)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
