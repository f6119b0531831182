"""A recorded step as the page shows it, whatever the run is on: one reader and one payload for pictures and for text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import RunError
from ..run_folder.reader import RunReader, StepRecord
from .payload import Room, group_payload
from .texts import TextStep, is_text, text_payload, text_step

T = TypeVar("T")
READING_SECONDS = 4.0  # after which no further step is read


def read_step(reader: RunReader, step: int) -> StepRecord | TextStep:
    """One recorded step, checked.

    Raises:
        RunError: it cannot be read, or its parts do not belong together.
    """
    if is_text(reader):
        return text_step(reader, step)
    record = reader.step(step)
    return record


def read_spread(
    reader: RunReader,
    wanted: Sequence[tuple[int, int]],
    take: Callable[[StepRecord, int], T],
) -> list[T]:
    """What is taken of a sample at each of these steps, in their order. One step is in memory at a time, those that cannot be
    read are left out, and after `READING_SECONDS` as many as were read are there, spread over all of them.

    Args:
        reader: the run.
        wanted: (step, place of the sample in it).
        take: (record, place) to what is kept; it must copy what it keeps of the arrays.
    """
    until, read = time.monotonic() + READING_SECONDS, {}
    for i in coarse_first(len(wanted)):
        with suppress(RunError):  # its own line is said where the step is chosen
            read[i] = take(reader.step(wanted[i][0]), wanted[i][1])
        if time.monotonic() > until:
            break
    return [read[i] for i in sorted(read)]


def coarse_first(many: int) -> Sequence[int]:
    """0 to many - 1, the last and the first at first, then what halves the distances: wherever it is cut off, the rest is spread evenly."""
    last = many - 1
    return sorted(range(many), key=lambda i: (i not in (0, last), -(i & -i)))


def shown_group(
    record: StepRecord | TextStep, places: Sequence[int], room: Room | None = None
) -> dict[str, Any]:
    """What the browser needs to show one group of a step, by the places of its samples."""
    if isinstance(record, TextStep):
        return text_payload(record, places)
    return group_payload(record, places, room)
