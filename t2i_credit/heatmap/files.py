"""Turns what a run recorded into picture files: heatmaps of a step, an animation of a run. Draws
nothing itself (see sheets.py) and changes nothing that the run wrote."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageColor

from ..errors import RunError
from ..run_folder.atomic import make_folder, write_atomic, write_png
from ..run_folder.reader import RunReader, StepRecord
from .colours import DARK_INK, LIGHT_INK, USUAL, table
from .draw import HAIRLINE, PAPER, QUIET
from .lettering import INK
from .sample import SampleView, common_scale
from .sheets import contact_sheet, credit_animation, panel

T = TypeVar("T")
FRAME_MS, LAST_FRAME_MS, MAX_FRAMES = 450, 2500, 48
EVERY = 4  # of a map's 257 colours one in so many is one of a GIF's 256
MOST_OF_ONE = (
    60  # pixels of a colour that count where colours are chosen: paper is not all that matters
)
PLAIN = Image.Dither.NONE
PACK = np.array([1 << 16, 1 << 8, 1], np.int32)  # a colour as one number


def sample_view(record: StepRecord, place: int) -> SampleView:
    """What the pictures show of the sample at `place` (0..N-1) of a step."""
    sample, arrays = record.samples[place], record.arrays
    signed, contrast = record.signed_contrast(), arrays.get("contrast")
    change = arrays.get("value_change")
    looked = arrays.get("reward_map")
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
        value_change=None if change is None else change[place],
        reward_map=None if looked is None else looked[place],
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


def gif_bytes(pictures: Sequence[Image.Image], palettes: Mapping[str, str] | None = None) -> bytes:
    """A GIF that repeats, resting on its last frame. All frames have the same 256 colours, so that maps and bars keep theirs:
    every fourth of each map, those of paper and ink, and as many of the pictures as there is room for.

    Args:
        pictures: frames of one size.
        palettes: {kind of map: palette} that they were drawn with; None = the usual ones.
    """
    shades = {**USUAL, **(palettes or {})}
    colours = np.concatenate([table(shades[kind])[::EVERY] for kind in ("credit", "advantage")])
    palette = Image.new("P", (1, 1))
    palette.putpalette(_with_pictures(pictures, colours).tobytes())
    pictures = [one.convert("RGB").quantize(palette=palette, dither=PLAIN) for one in pictures]
    times = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=list(pictures[1:]), duration=times, loop=0
    )
    return buffer.getvalue()


def _with_pictures(pictures: Sequence[Image.Image], colours: np.ndarray) -> np.ndarray:
    """(256, 3): these colours (N, 3), paper and ink, and the rest chosen from what else the pictures show."""
    inks = np.array([ImageColor.getrgb(ink) for ink in (PAPER, INK, QUIET, HAIRLINE)], np.uint8)
    fixed = np.unique(np.concatenate([colours, inks, np.array([DARK_INK, LIGHT_INK])]), axis=0)
    seen = np.concatenate(
        [np.asarray(one.convert("RGB"))[::2, ::2].reshape(-1, 3) for one in pictures]
    )
    packed, counts = np.unique(seen.astype(np.int32) @ PACK, return_counts=True)
    kept = ~np.isin(packed, fixed.astype(np.int32) @ PACK)
    packed, counts = packed[kept], np.minimum(counts[kept], MOST_OF_ONE)
    room = 256 - len(fixed)
    if not len(packed):
        return np.resize(fixed, (256, 3)).astype(np.uint8)
    rest = np.repeat(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1), counts, 0)
    found = Image.fromarray(rest[None].astype(np.uint8)).quantize(room).getpalette("RGB") or []
    rest = np.array(found, np.uint8).reshape(-1, 3)[:room]
    return np.resize(np.concatenate([fixed, rest]), (256, 3)).astype(np.uint8)


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
