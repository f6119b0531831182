"""What the credit maps hand out: a panel as PNG, a film as GIF, every number as CSV. Each as (ending, MIME type, base64)."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import RunError
from ..heatmap.colours import PALETTES, USUAL
from ..heatmap.draw import display
from ..heatmap.files import gif_bytes, sample_view
from ..heatmap.sample import SampleView, common_scale
from ..heatmap.sheets import credit_animation, panel
from ..heatmap.text import spoken
from ..run_folder.reader import StepRecord
from .payload import LONGEST, alone, view_of

Made = tuple[str, str, str]
Group = tuple[StepRecord, Sequence[int]]  # a step, and the places of a group's samples in it
COLUMNS = (
    "logprobs",
    "negative_logprobs",
    "guided_logprobs",
    "signed_contrast",
    "contrast",
    "credit",
    "token_advantages",
    "entropy",
    "value_change",
    "reward_map",
)


def chosen_palettes(asked: object) -> dict[str, str]:
    """{kind of map: palette} of what a page asks for; what is left out is the usual one.

    Raises:
        RunError: a kind or a palette that there is not.
    """
    if asked is None:
        return dict(USUAL)
    if not isinstance(asked, dict) or not all(
        isinstance(kind, str) and name in PALETTES.get(kind, ()) for kind, name in asked.items()
    ):
        known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in PALETTES.items())
        raise RunError(f"palettes: not known; there are {known}")
    return {**USUAL, **asked}


def png_file(
    groups: Sequence[Group], number: int, place: Any, palettes: Mapping[str, str] = USUAL
) -> Made:
    """The panel of one sample.

    Args:
        groups: those that the page shows on one scale.
        number: of the sample's group among them.
        place: of the sample in its step.
        palettes: see `chosen_palettes`.

    Raises:
        RunError: the group has no such sample, or its picture cannot be read.
    """
    record, places = groups[number]
    if place not in places:
        raise RunError(f"sample {place!r} is not in this group")
    views = [view_of(step, one) for step, known in groups for one in known]
    scale = common_scale(views, palettes)
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


def gif_file(
    frames: Sequence[tuple[int, SampleView | RunError]], palettes: Mapping[str, str] = USUAL
) -> Made:
    """One prompt through training; steps whose picture cannot be read are left out.

    Raises:
        RunError: fewer than two are left.
    """
    found = [(step, one) for step, one in frames if isinstance(one, SampleView)]
    troubles = [str(one) for _, one in frames if isinstance(one, RunError)]
    if len(found) < 2:
        raise RunError(f"a film needs two pictures; {troubles[-1]}")
    pictures = credit_animation(found, palettes)
    return "gif", "image/gif", _base64(gif_bytes(pictures, palettes))


def csv_file(groups: Sequence[Group], titles: Sequence[str] = ()) -> Made:
    """One line per token of some groups: where it is, what it is, every number that is known of it.

    Args:
        groups: one after the other.
        titles: of each group, for a column that says which; () = there is none.
    """
    numbers = [_numbers(record) for record, _ in groups]
    known = [name for name in COLUMNS if any(name in one for one in numbers)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about_token = ["token", "row", "column", "code"]
    about_sample = ["step", "sample", *ASKED, "reward", "advantage"]
    which = ["group"] if titles else []
    table.writerow([*which, *about_sample, *about_token, *known])
    for number, ((record, places), values) in enumerate(zip(groups, numbers, strict=True)):
        for place in places:
            sample = record.samples[place]
            about: list[Any] = [cell(titles[number])] if titles else []
            about += [record.step, place, *asked_cells(sample, "null prompt")]
            about += [sample["reward"], sample["advantage"]]
            for token, code in enumerate(record.arrays["tokens"][place]):
                row, column = divmod(token, record.grid[1])
                of_token = [
                    repr(float(values[name][place][token])) if name in values else ""
                    for name in known
                ]
                table.writerow([*about, token, row, column, int(code), *of_token])
    return "csv", "text/csv", _base64(text.getvalue().encode())


ASKED = ("prompt", "negative", "negative_kind")


def asked_cells(sample: Mapping[str, Any], without: str) -> list[str]:
    """Prompt, negative prompt, and "text", or `without` where there is no such text: an empty one is one."""
    negative = sample["negative"]
    shown = "" if negative is None else cell(spoken(negative))
    return [cell(spoken(sample["prompt"])), shown, without if negative is None else "text"]


def _numbers(record: StepRecord) -> Mapping[str, Any]:
    """Its arrays, and the signed contrast where both log-probabilities are known."""
    signed = record.signed_contrast()
    return record.arrays if signed is None else {**record.arrays, "signed_contrast": signed}


def cell(text: str | None) -> str:
    """A text that no spreadsheet takes for a formula."""
    if text is None:
        return ""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
