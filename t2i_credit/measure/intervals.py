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
from scipy.special import betaincinv, ndtri, stdtrit

from ..errors import UserError

LEVEL = 0.95
UPPER = (1 + LEVEL) / 2
ROUNDING = 1e-15  # of a variance
SINGLE = 1e-6  # of numbers in single precision, a few roundings of them
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


def mean_interval(values: Numbers, scale: float = 0.0) -> Interval:
    """The mean over prompts (P,), nan left out, and its 95% t-interval; no interval of fewer than two, or of equal
    values, whose spread says nothing about other prompts. Differences of numbers of the size `scale` are equal up to
    their rounding."""
    return _of_known(lambda known: _around(known, 1 / math.sqrt(len(known)), scale), values)


def share_interval(shares: Numbers) -> Interval:
    """The mean of shares in [0, 1] over prompts (P,), nan left out, and its interval; see `task_intervals`."""
    return _of_known(lambda known: _share([known]), shares)


def change_interval(changes: Numbers) -> Interval:
    """The mean of changes in [-1, 1] over prompts (P,), nan left out, and its interval; see `change_intervals`."""
    return _of_known(lambda known: _change([known]), changes)


def _of_known(interval: Callable[[Numbers], Iterable[float]], values: Numbers) -> Interval:
    """The interval of the values (P,) that are not nan."""
    known = values[np.isfinite(values)]
    return [*interval(known)] if len(known) else [math.nan] * 3


def ratio_interval(above: Numbers, below: Numbers) -> Interval:
    """mean(above) / mean(below) over the prompts that have both, and its 95% bootstrap interval.

    A resample whose mean of `below` is not positive has no ratio; where more than 2.5% have none, nothing is known
    of the upper end, which is then infinite.
    """
    both = np.isfinite(above) & np.isfinite(below)
    above, below = above[both], below[both]
    if len(above) < 2:
        return [float(_ratio(above, below)) if len(above) else math.nan, math.nan, math.nan]
    picks = _picks(np.random.default_rng(0), len(above), RESAMPLES)
    drawn = _ratio(above[picks], below[picks])
    return [float(_ratio(above, below)), *_ends(drawn, method="inverted_cdf")]


def bootstrap(statistic: Callable[[Numbers], Numbers], sums: Numbers) -> Interval:
    """A statistic of sums over prompts, and its 95% bootstrap interval.

    Args:
        statistic: sums (..., N) to figures (...).
        sums: (P, N), of each prompt.

    Returns:
        [estimate, low, high]; the ends are nan of fewer than two prompts, or where a resample has no figure.
    """
    estimate = float(statistic(sums.sum(0)))
    if len(sums) < 2:
        return [estimate, math.nan, math.nan]
    picks = _picks(np.random.default_rng(0), len(sums), RESAMPLES)
    drawn = statistic(sums[picks].sum(1))
    return [estimate, *(_ends(drawn) if np.isfinite(drawn).all() else (math.nan, math.nan))]


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    level = below.mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(level > 0, above.mean(-1) / level, np.inf)


def median_interval(values: Sequence[float]) -> list[float]:
    """95% percentile bootstrap interval of the median: [low, high]. The same values give the same interval."""
    given = np.asarray(values, dtype=float)
    if len(given) < 2:
        return [math.nan] * 2
    picks = _picks(np.random.default_rng(0), len(given), MEDIAN_RESAMPLES)
    return [*_ends(np.median(given[picks], axis=1))]


def task_intervals(values: Mapping[str, Numbers]) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of the shares of right images of every task, and of "overall", the mean over tasks.

    The interval is Clopper and Pearson's at the effective sample size, p (1 - p) over the variance of the mean over
    prompts, with Student's t in place of the normal (Korn and Graubard 1998, Survey Methodology 24): images of one prompt
    are no independent evidence. The variance is hardly known where few prompts are right, or few wrong; there, with k of
    them, the size is drawn to the number of prompts with weight 1 / (k + 1). Of all simulated cases (docs/evaluation.md)
    95% intervals hold the truth in at least 93%. They have a width where all prompts agree, at 0 and at 1, too.

    Args:
        values: {task: each prompt's share (P,)}.

    Returns:
        low and high are nan where a task has a single prompt.
    """
    return {task: _share(parts) for task, parts in _strata(values).items()}


def change_intervals(changes: Mapping[str, Numbers]) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of paired changes of a share, of every task and of "overall", the mean over tasks.

    A t-interval over prompts. Half a prompt squared is added to the variance of their sum, so that among few prompts of
    which none changed there is still a width (as Agresti and Min 2005, Statistics in Medicine 24, add one to a table of pairs).

    Args:
        changes: {task: each prompt's change (P,), in [-1, 1]}.

    Returns:
        low and high are nan where a task has a single prompt.
    """
    return {task: _change(parts) for task, parts in _strata(changes).items()}


def _strata(values: Mapping[str, Numbers]) -> dict[str, list[Numbers]]:
    """What each task and "overall" are the means of: the task's prompts, and those of every task."""
    return {task: [numbers] for task, numbers in values.items()} | {"overall": [*values.values()]}


def _share(strata: Sequence[Numbers]) -> tuple[float, float, float]:
    """See `task_intervals`; the strata count alike."""
    mean, variance, freedom = _mean_of(strata, 0.0)
    if math.isnan(freedom):
        return mean, math.nan, math.nan
    prompts = _harmonic(strata)
    size = prompts
    if variance > ROUNDING:
        rare = min(mean, 1 - mean) * prompts
        found = mean * (1 - mean) / variance
        size = (rare * found + prompts) / (rare + 1) if rare else prompts
    size *= (float(ndtri(UPPER)) / float(stdtrit(freedom, UPPER))) ** 2
    right, wrong = mean * size, (1 - mean) * size
    low = float(betaincinv(right, wrong + 1, 1 - UPPER)) if mean > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, UPPER)) if mean < 1 else 1.0
    return mean, low, high


def _change(strata: Sequence[Numbers]) -> tuple[float, float, float]:
    """See `change_intervals`; the strata count alike."""
    mean, variance, freedom = _mean_of(strata, 0.5)
    if math.isnan(freedom):
        return mean, math.nan, math.nan
    half = float(stdtrit(freedom, UPPER)) * math.sqrt(variance)
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def _mean_of(strata: Sequence[Numbers], added: float) -> tuple[float, float, float]:
    """Mean over strata, its variance with `added` to that of every stratum's sum, and the degrees of freedom of that
    (Satterthwaite 1946); variance and freedom are nan where a stratum has a single prompt."""
    mean = fmean(float(numbers.mean()) for numbers in strata)
    counts = [len(numbers) for numbers in strata]
    if min(counts) < 2:
        return mean, math.nan, math.nan
    parts = [
        (numbers.var(ddof=1) / n + added / n**2) / len(strata) ** 2
        for n, numbers in zip(counts, strata, strict=True)
    ]
    variance, most = sum(parts), sum(counts) - len(strata)
    if variance <= ROUNDING:
        return mean, 0.0, float(most)
    spread = sum(part**2 / (n - 1) for n, part in zip(counts, parts, strict=True))
    return mean, float(variance), float(min(variance**2 / spread, most))


def _harmonic(strata: Sequence[Numbers]) -> float:
    """As many prompts of one stratum give a mean over strata the same variance, if prompts vary alike."""
    return len(strata) ** 2 / sum(1 / len(numbers) for numbers in strata)


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
    """(mean, low, high), the 95% t-interval of the mean over seeds; nan for the ends where all seeds are equal."""
    require_seeds(len(values))
    return _around(values, 1.0 / math.sqrt(len(values)))


def prediction_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) in which one new seed falls with 95% probability, if seeds are normally distributed; nan for
    the ends where all seeds are equal."""
    require_seeds(len(values))
    return _around(values, math.sqrt(1.0 + 1.0 / len(values)))


def _around(
    values: Sequence[float] | Numbers, width: float, scale: float = 0.0
) -> tuple[float, float, float]:
    """mean +- t(n - 1) * standard deviation * width; nan in place of the ends for a single value or equal ones.

    Values are equal where they differ by no more than single precision does at their own size, or at `scale`.
    """
    given = np.asarray(values, dtype=float)
    mean = float(given.mean())
    if len(given) < 2 or float(np.ptp(given)) <= SINGLE * max(scale, float(np.abs(given).max())):
        return mean, math.nan, math.nan
    half = float(stdtrit(len(given) - 1, UPPER)) * float(given.std(ddof=1)) * width
    return mean, mean - half, mean + half


def paired_difference(a: Sequence[float], b: Sequence[float], words: tuple[str, str]) -> Difference:
    """How much the first method is above the second, over the seeds that both ran.

    Args:
        a, b: one number per seed, in the same order.
        words: what an interval above 0 says, and one below 0.
    """
    assert len(a) == len(b), (len(a), len(b))
    mean, low, high = t_interval([x - y for x, y in zip(a, b, strict=True)])
    sign = verdict(low, high)
    return Difference(
        mean, low, high, words[0] if sign > 0 else words[1] if sign else NO_DIFFERENCE
    )


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


def verdict(low: float | None, high: float | None) -> int:
    """1 for an interval above 0, -1 for one below it; 0 for one that holds it, or where there is none."""
    return int((low or 0) > 0) - int((high or 0) < 0)


def or_none(value: float) -> float | None:
    """The value; None, as JSON has it, where it is nan or infinite."""
    return float(value) if math.isfinite(value) else None


def decimals(values: Iterable[float | None]) -> int:
    """How many decimals show four digits of the largest of these; 3 at least, so that 0.003 is seen beside 21.3."""
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return max(3, 4 - math.ceil(math.log10(largest))) if largest else 3


def with_interval(
    estimate: float, low: float | None, high: float | None, style: str = ".3f"
) -> str:
    """ "0.512 [0.401, 0.623]"; "0.512 [no interval]" where too little is known."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{estimate:{style}} [no interval]"
    return f"{estimate:{style}} [{low:{style}}, {high:{style}}]"


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, without a line end."""
    head = list(head)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
