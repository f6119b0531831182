"""Seconds of work on a device that may lag behind Python, and on how many CPU threads. Judges nothing."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


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
