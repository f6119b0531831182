"""Turns what a run recorded into picture files: heatmaps of a step, an animation of a run. Draws
nothing itself (see sheets.py) and changes nothing that the run wrote."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ..errors import RunError
from ..run_folder.atomic import make_folder, write_atomic, write_png
from ..run_folder.reader import RunReader, StepRecord
from .sample import SampleView, common_scale
from .sheets import contact_sheet, credit_animation, panel

T = TypeVar("T")
FRAME_MS, LAST_FRAME_MS, MAX_FRAMES = 450, 2500, 48


def sample_view(record: StepRecord, place: int) -> SampleView:
    """What the pictures show of the sample at `place` (0..N-1) of a step."""
    sample, arrays = record.samples[place], record.arrays
    signed, contrast = record.signed_contrast(), arrays.get("contrast")
    return SampleView(
        image=record.image(place),
        grid=record.grid,
        credit=arrays["credit"][place],
        contrast=None if contrast is None else contrast[place],
        signed_contrast=None if signed is None else signed[place],
        token_advantages=arrays["token_advantages"][place],
        prompt=sample["prompt"],
        negative=sample["negative"],
        reward=_number(sample["reward"]),
        advantage=_number(sample["advantage"]),
        gold=sample["gold"],
        number=place,
    )


def group_places(record: StepRecord) -> list[list[int]]:
    """The places of the samples of each prompt group, in the order of recording."""
    groups: dict[int, list[int]] = {}
    for place, sample in enumerate(record.samples):
        groups.setdefault(sample["group"], []).append(place)
    return list(groups.values())


def write_heatmaps(
    run_path: Path | str, step: int | None = None, out: Path | str | None = None
) -> list[Path]:
    """Draws one recorded step: a panel per sample (named like its image) and contact_sheet.png.

    Args:
        run_path: the run folder.
        step: which step; None = the latest.
        out: the folder to write to; None = heatmaps/<step> in the run folder.

    Returns:
        The files, the contact sheet first.

    Raises:
        RunError: no such run or step, a damaged file, or a place that cannot be written.
    """
    reader = RunReader(run_path)
    record = reader.step(step)
    folder = Path(out) if out is not None else reader.heatmaps(record.step)
    places = group_places(record)
    groups = [[sample_view(record, place) for place in group] for group in places]
    title = f"{reader.path.resolve().name}, step {record.step}"
    make_folder(folder)
    written = [folder / "contact_sheet.png"]
    write_png(written[0], contact_sheet(groups, title=title))
    for group, views in zip(places, groups, strict=True):
        scale = common_scale(views)
        for place, view in zip(group, views, strict=True):
            written.append(folder / record.samples[place]["image"])
            write_png(written[-1], panel(view, scale))
    return written


def write_animation(
    run_path: Path | str, prompt: str | None = None, out: Path | str | None = None
) -> Path:
    """Draws how the credit of one prompt changed through the run, as a GIF. Of each step it takes
    the first sample of the prompt, not the best, so that the film shows the run and not a choice.

    Args:
        run_path: the run folder.
        prompt: its text; None = the one that the most steps recorded.
        out: the file to write; None = heatmaps/credit.gif in the run folder.

    Raises:
        RunError: fewer than two steps recorded the prompt, or a file cannot be read or written.
    """
    reader = RunReader(run_path)
    records = [reader.step(step) for step in reader.steps()]
    first = [_first_places(record) for record in records]
    counts = Counter(text for places in first for text in places)
    if prompt is None and counts:
        prompt = counts.most_common(1)[0][0]
    if prompt is None or counts[prompt] < 2:
        what = "no prompt was recorded"
        if prompt is not None:
            what = f"prompt {prompt!r} was recorded at {counts[prompt]} step(s)"
        raise RunError(f"{reader.path}: {what}; an animation takes at least two steps of a prompt")
    found = [
        (record, places[prompt])
        for record, places in zip(records, first, strict=True)
        if prompt in places
    ]
    frames = [(record.step, sample_view(record, place)) for record, place in thinned(found)]
    path = Path(out) if out is not None else reader.heatmaps() / "credit.gif"
    make_folder(path.parent)
    write_atomic(path, gif_bytes(credit_animation(frames)))
    return path


def gif_bytes(pictures: Sequence[Image.Image]) -> bytes:
    """A GIF that repeats, resting on its last frame."""
    times = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=list(pictures[1:]), duration=times, loop=0
    )
    return buffer.getvalue()


def _first_places(record: StepRecord) -> dict[str, int]:
    """{prompt: place of its first sample that is no golden reference}, in the order of
    recording."""
    places: dict[str, int] = {}
    for place, sample in enumerate(record.samples):
        if not sample["gold"]:
            places.setdefault(sample["prompt"], place)
    return places


def thinned(found: list[T], most: int = MAX_FRAMES) -> list[T]:
    """At most so many of them, at equal distances; the first and the last always."""
    last = len(found) - 1
    if last < most:
        return found
    return [found[round(n * last / (most - 1))] for n in range(most)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # JSON holds null for what was not finite
