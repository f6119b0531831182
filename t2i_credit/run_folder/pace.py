"""How a run gets on: what the command line and the app's page say of its last steps, by one rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .checks import is_number

RECENT = 20  # steps that a running mean, and the time that is left, are made of


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
