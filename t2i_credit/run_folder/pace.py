"""How a run gets on: what the command line and the app's page say of its last steps, by one rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from .checks import is_number

RECENT = 20  # steps that a running mean, and the time that is left, are made of
WINDOW = 40  # steps over which a held-out reward is watched, an even number
SURE = 2.0  # standard errors by which a mean must move before it counts as risen or fallen


def recent(metrics: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The last `RECENT` finite values of a metric."""
    known = (row.get(name) for row in metrics)
    numbers = (float(v) for v in known if isinstance(v, int | float) and is_number(v))
    return [number for number in numbers if math.isfinite(number)][-RECENT:]


def seconds_left(metrics: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    """What so many steps will take: the median of the last ones times their number; None if there is nothing to go by.

    The first step warms up, and is left out once there is another; of two middle ones the shorter counts, which after a
    resume leaves its first step out, too.
    """
    times = recent(metrics, "time/step")
    times = sorted(times[1:] or times)
    return times[(len(times) - 1) // 2] * max(0, steps) if times else None


def heldout_falls(
    reward: Sequence[float], heldout: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """How far each held-out part fell while the reward rose, of those that did for sure.

    Args:
        reward: of the last `WINDOW` steps; with fewer nothing falls.
        heldout: {part: its means of the same steps}.
    """
    if len(reward) < WINDOW or _moved(reward, 1) is None:
        return {}
    changes = {name: _moved(values, -1) for name, values in heldout.items()}
    return {name: change for name, change in changes.items() if change}


def _moved(values: Sequence[float], sign: int) -> float | None:
    """How far the later half's mean lies from the earlier one's in the direction of `sign`; None if not for sure."""
    halves = values[: WINDOW // 2], values[WINDOW // 2 :]
    change = sign * (fmean(halves[1]) - fmean(halves[0]))
    error = math.sqrt(sum(variance(half) / len(half) for half in halves))
    return change if change > SURE * error else None
