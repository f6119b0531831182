"""Is a score right about where the objects are, and how sure is that? Pure functions on numbers; samples nothing.

Shapes: P prompts, G samples of each, B = P*G samples, T = H*W image tokens in raster order, N batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95

Numbers = NDArray[np.float64]
Interval = list[float]  # [estimate, low, high]; nan where there is no such number


# ---- one number per sample ----


def auroc(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> Numbers:
    """The probability that a token on an object scores higher than one off it; a tie counts half.

    (B, T), (B, T) to (B,) in [0, 1]; 0.5 is chance, nan where all tokens are on, or all are off.
    """
    on = on_object.sum(1)
    off = on_object.shape[1] - on
    ranks = np.where(on_object, stats.rankdata(scores, axis=1), 0.0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = (ranks - on * (on + 1) / 2) / (on * off)
    return np.where((on > 0) & (off > 0), found, np.nan)


def mass_inside(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> Numbers:
    """The share of a row's total score, at least 0 each, that lies on objects: (B, T) twice to (B,)."""
    total = scores.sum(1, dtype=np.float64)
    inside = np.where(on_object, scores, 0).sum(1, dtype=np.float64)
    return np.divide(inside, total, out=on_object.mean(1), where=total > 0)


def pointing(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> Numbers:
    """Whether the top token is on an object; of several top tokens the share. (B, T) twice to (B,)."""
    top = scores == scores.max(1, keepdims=True)
    share: Numbers = (top & on_object).sum(1) / top.sum(1)
    return share


# ---- intervals over prompts ----


def per_prompt(values: NDArray[Any], group_size: int) -> Numbers:
    """(B,) to the mean of each prompt's samples (P,), those that are nan left out; nan where all are."""
    groups = np.asarray(values, dtype=np.float64).reshape(-1, group_size)
    known = np.isfinite(groups)
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
    picks = np.random.default_rng(0).integers(rows.shape[1], size=(RESAMPLES, rows.shape[1]))
    tail = (1 - LEVEL) / 2
    drawn = statistic(*rows[:, picks])
    ends = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf")
    return [float(statistic(*rows)), float(ends[0]), float(ends[1])]


# ---- agreement of gradients ----


def signal_to_noise(products: Numbers) -> float:
    """|mean gradient|^2 / variance of one batch's gradient, both without bias, from dot products (N, N).

    The mean over pairs of different batches estimates |mean|^2; the mean square of one batch is that plus its noise.
    nan where no batch teaches anything (no group whose rewards differ).
    """
    signal = _off_diagonal_mean(products)
    noise = float(np.trace(products)) / len(products) - signal
    if not products.any():
        return math.nan
    return signal / noise if noise > 0 else math.inf


def times_cleaner(products: Numbers, others: Numbers) -> Interval:
    """The signal-to-noise ratio of the first over that of the others, same batches: (N, N) each.

    The interval is the jackknife's of the logarithm, so that it is never below 0; its ends are nan where one of the
    ratios is not above 0 without some batch.
    """
    found = jackknife(_log_ratio, products, others)
    return [math.exp(value) for value in found]


def _log_ratio(products: Numbers, others: Numbers) -> float:
    ratios = signal_to_noise(products), signal_to_noise(others)
    if not all(0 < ratio < math.inf for ratio in ratios):
        return math.nan
    return math.log(ratios[0] / ratios[1])


def pair_cosine(products: Numbers) -> float:
    """Mean cosine between the gradients of two independent batches, from their dot products (N, N).

    A batch that teaches nothing (gradient 0) counts as cosine 0.
    """
    norms = np.sqrt(np.diag(products))
    lengths = np.outer(norms, norms)
    return _off_diagonal_mean(
        np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    )


def large_batch_cosine(products: Numbers, crossed: Numbers, large: Numbers) -> float:
    """Mean cosine of one batch's gradient with the summed uniform-credit gradient of all other batches.

    Args:
        products: (N, N) of the assigner's gradients.
        crossed: (N, N) of the assigner's gradient i with the uniform one j.
        large: (N, N) of the uniform gradients.
    """
    found = []
    for i in range(len(products)):
        rest = np.arange(len(products)) != i
        length = math.sqrt(products[i, i] * large[np.ix_(rest, rest)].sum())
        found.append(crossed[i, rest].sum() / length if length > 0 else 0.0)
    return float(np.mean(found))


def direction_cosine(products: Numbers, crossed: Numbers, large: Numbers) -> float:
    """Cosine of the expected gradient with the expected uniform-credit one: 1 = no bias. Arguments as above.

    Noise lowers every cosine of measured gradients; here the lengths are estimated from pairs of independent
    batches, which leaves the noise out (so it may exceed 1). nan where a length is not resolved.
    """
    own, theirs = _off_diagonal_mean(products), _off_diagonal_mean(large)
    if min(own, theirs) <= 0:
        return math.nan
    return _off_diagonal_mean(crossed) / math.sqrt(own * theirs)


def jackknife(statistic: Callable[..., float], *matrices: Numbers) -> Interval:
    """[estimate, low, high] of a statistic of (N, N) matrices over batches, with a 95% t-interval (delete-one).

    The ends are nan where the statistic is not finite without some batch.
    """
    batches = len(matrices[0])
    estimate = statistic(*matrices)
    without = []
    for i in range(batches):
        rest = np.arange(batches) != i
        without.append(statistic(*(m[np.ix_(rest, rest)] for m in matrices)))
    if not np.isfinite(without).all():
        return [estimate, math.nan, math.nan]
    spread = np.asarray(without) - np.mean(without)
    error = math.sqrt((batches - 1) / batches * float((spread**2).sum()))
    half = float(stats.t.ppf((1 + LEVEL) / 2, batches - 1)) * error
    return [estimate, estimate - half, estimate + half]


def _off_diagonal_mean(matrix: Numbers) -> float:
    count = len(matrix)
    return float(matrix.sum() - np.trace(matrix)) / (count * (count - 1))
