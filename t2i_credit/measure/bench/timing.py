"""Variants measured in turn: seconds on a device that may lag behind Python, medians, paired ratios, rows. Judges nothing."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..intervals import median_interval

Variant = Callable[[int], float]  # number of the repeat to what was measured
Row = dict[str, Any]


def interleaved(
    ours: Variant, rival: Variant, repeats: int, done: Callable[[], None] = lambda: None
) -> tuple[list[float], list[float]]:
    """Measures both variants `repeats` times, in turn; each goes first in every other repeat."""
    found: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            found[which].append((ours, rival)[which](i))
        done()
    return found


def compared(what: str, unit: str, ours: Sequence[float], rival: Sequence[float]) -> Row:
    """A row of two variants: their medians, the median of the paired ratios ours / rival, and its interval."""
    ratios = [a / b for a, b in zip(ours, rival, strict=True)]
    return _row(what, unit, ours) | {
        "rival": float(np.median(rival)),
        "ratio": float(np.median(ratios)),
        "interval": median_interval(ratios),
    }


def alone(what: str, unit: str, values: Sequence[float]) -> Row:
    """A row without a rival; the interval is that of the median itself."""
    return _row(what, unit, values) | {"interval": median_interval(values)}


def _row(what: str, unit: str, ours: Sequence[float]) -> Row:
    return {
        "what": what,
        "unit": unit,
        "ours": float(np.median(ours)),
        "rival": None,
        "ratio": None,
        "interval": None,
        "repeats": len(ours),
    }


def table(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of a report as texts, for a person."""
    return [
        {
            "what": row["what"],
            "ours": _shown(row["ours"], row["unit"]),
            "rival": "none" if row["rival"] is None else _shown(row["rival"], row["unit"]),
            "ratio": "none" if row["ratio"] is None else f"{row['ratio']:.3f}",
            "interval": " to ".join(
                f"{end:,.0f}" if row["ratio"] is None else f"{end:.3f}" for end in row["interval"]
            ),
            "repeats": str(row["repeats"]),
        }
        for row in report["rows"]
    ]


def passes_line(passes: Mapping[str, float]) -> str:
    """The forward passes of a report, for a person."""
    counted, expected = passes["counted"], passes["expected"]
    return f"forward passes per trained image token: {counted:g} counted by hooks, {expected:g} expected"


def _shown(value: float, unit: str) -> str:
    return f"{value:.3f} {unit}" if unit == "s" else f"{value:,.0f} {unit}"


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Wall-clock seconds of `work`, until the device is done with it."""
    gc.collect()  # so that none of it falls into the measurement
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """So many CPU threads; None = as many as before. Other work on the machine disturbs several threads most."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
