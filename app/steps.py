"""A recorded step as the page shows it, whatever the run is on: one reader and one payload for pictures and for text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..run_folder.reader import RunReader, StepRecord
from .payload import group_payload
from .texts import TextStep, is_text, text_payload, text_step


def read_step(reader: RunReader, step: int) -> StepRecord | TextStep:
    """One recorded step, checked.

    Raises:
        RunError: it cannot be read, or its parts do not belong together.
    """
    if is_text(reader):
        return text_step(reader, step)
    record = reader.step(step)
    return record


def shown_group(record: StepRecord | TextStep, places: Sequence[int]) -> dict[str, Any]:
    """What the browser needs to show one group of a step, by the places of its samples."""
    if isinstance(record, TextStep):
        return text_payload(record, places)
    return group_payload(record, places)
