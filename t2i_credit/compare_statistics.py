"""What several seeds of several methods show: curves to numbers, paired differences, intervals. Reads no run.

A seed decides prompts and noise, so runs of one seed under two methods are a pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from .errors import UserError

LEVEL = 0.95
NO_DIFFERENCE = "no difference shown"


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
