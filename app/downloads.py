"""What the credit maps hand out: a panel as PNG, a film as GIF, every number as CSV. Each as (ending, MIME type, base64)."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import RunError
from ..heatmap.draw import display
from ..heatmap.files import gif_bytes, sample_view
from ..heatmap.sample import SampleView, common_scale
from ..heatmap.sheets import credit_animation, panel
from ..heatmap.text import spoken
from ..run_folder.reader import StepRecord
from .payload import LONGEST, alone, view_of

Made = tuple[str, str, str]
COLUMNS = (
    "logprobs",
    "negative_logprobs",
    "guided_logprobs",
    "contrast",
    "credit",
    "token_advantages",
    "entropy",
)


def png_file(record: StepRecord, places: Sequence[int], place: Any) -> Made:
    """The panel of one sample, on the scale of its group.

    Raises:
        RunError: the group has no such sample, or its picture cannot be read.
    """
    if place not in places:
        raise RunError(f"sample {place!r} is not in this group")
    scale = common_scale([view_of(record, one) for one in places])
    buffer = io.BytesIO()
    panel(sample_view(record, place), scale).save(buffer, "PNG")
    return "png", "image/png", _base64(buffer.getvalue())


def gif_frame(record: StepRecord, place: int) -> tuple[int, SampleView | RunError]:
    """What a film needs of one step, or why it has no picture."""
    try:
        view = sample_view(alone(record, place), 0)
    except RunError as error:
        return record.step, error
    small = max(view.image.size) <= LONGEST
    return record.step, view if small else replace(view, image=display(view.image, LONGEST))


def gif_file(frames: Sequence[tuple[int, SampleView | RunError]]) -> Made:
    """One prompt through training; steps whose picture cannot be read are left out.

    Raises:
        RunError: fewer than two are left.
    """
    found = [(step, one) for step, one in frames if isinstance(one, SampleView)]
    troubles = [str(one) for _, one in frames if isinstance(one, RunError)]
    if len(found) < 2:
        raise RunError(f"a film needs two pictures; {troubles[-1]}")
    pictures = credit_animation(found)
    return "gif", "image/gif", _base64(gif_bytes(pictures))


def csv_file(record: StepRecord, places: Sequence[int]) -> Made:
    """One line per token of a group: where it is, what it is, every number that is known of it."""
    known = [name for name in COLUMNS if name in record.arrays]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about_token = ["token", "row", "column", "code"]
    table.writerow(
        ["step", "sample", "prompt", "negative", "reward", "advantage", *about_token, *known]
    )
    for place in places:
        sample = record.samples[place]
        prompts = [
            "" if asked is None else cell(spoken(asked))
            for asked in (sample["prompt"], sample["negative"])
        ]
        about = [record.step, place, *prompts]
        about += [sample["reward"], sample["advantage"]]
        for token, code in enumerate(record.arrays["tokens"][place]):
            row, column = divmod(token, record.grid[1])
            numbers = [repr(float(record.arrays[name][place][token])) for name in known]
            table.writerow([*about, token, row, column, int(code), *numbers])
    return "csv", "text/csv", _base64(text.getvalue().encode())


def cell(text: str | None) -> str:
    """A text that no spreadsheet takes for a formula."""
    if text is None:
        return ""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
