"""The credit maps tab: one group of one recorded step, its films and its downloads."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gradio as gr

from ..errors import RunError
from ..heatmap.files import sample_view, thinned
from ..heatmap.sample import SampleView, common_scale
from ..run_folder.reader import RunReader, StepRecord
from . import components
from .downloads import chosen_palettes, csv_file, gif_file, gif_frame, png_file
from .figures import number
from .payload import Room, alone, plain, scale_payload, without_pictures
from .runs import Recorded, RunShelf, liveliest, or_in_words
from .steps import READING_SECONDS, read_spread, read_step, shown_group
from .texts import TextStep, text_csv
from .training import by_reward
from .words import train_command

T = TypeVar("T")
LOOKING = 0.3  # seconds; steps that were read before are remembered


def build() -> tuple[gr.HTML, gr.HTML]:
    """The maps, and what hands out files."""
    return components.maps("credit-maps"), components.downloads("credit-files")


@or_in_words(lambda why, *_: components.note("This step cannot be shown", why))
def show(shelf: RunShelf, name: object, asked: dict[str, Any]) -> dict[str, Any]:
    """One group.

    Args:
        shelf: the runs.
        name: of the run.
        asked: "step" (left out = the newest), and "group" or "prompt" (left out = the liveliest group). "turn", the place
            among the visitor's questions, comes back with the answer.
    """
    if not name:
        return components.note(
            "No run here yet",
            "The credit maps are drawn from the steps that a run recorded.",
            train_command(shelf.root),
        )
    reader = shelf.open(name)
    steps = reader.steps()
    if not steps:
        return components.note(
            "No step recorded yet", f"{reader.path.name} has not written samples so far."
        )
    step = nearest(steps, asked.get("step"))
    record = read_step(reader, step)
    groups = shelf.recorded(reader, step)
    chosen = choose(groups, asked)
    alone = is_alone(shelf, reader, chosen, step)
    shown = one_group(str(name), steps, record, groups, chosen)
    example = None if liveliest(groups).spread else _example(shelf, reader)
    more = {"alone": alone, "critic_weight": critic_weight(shelf, reader, step)}
    group = {**shown["group"], **more}
    return {**shown, "group": group, "example": example, "turn": asked.get("turn")}


def _example(shelf: RunShelf, reader: RunReader) -> dict[str, Any] | None:
    """The liveliest group of the newest step that has one with spread, to explain credit on; None if none is found in time."""
    until = time.monotonic() + LOOKING
    for step in reversed(reader.steps()):
        if time.monotonic() > until:
            break
        with suppress(RunError):
            groups = shelf.recorded(reader, step)
            if groups and (chosen := liveliest(groups)).spread:
                record = read_step(reader, step)
                return plain(shown_group(record, by_reward(record.samples, chosen.places)))
    return None


def critic_weight(shelf: RunShelf, reader: RunReader, step: int) -> float | None:
    """How far the critic was believed at a step; None where there is none, or nobody knows."""
    try:
        metrics = shelf.metrics(reader)
    except RunError:
        return None  # the training tab says what is wrong with them
    told = (
        number(row.get("critic/weight")) for row in reversed(metrics) if row.get("step") == step
    )
    weight = next(told, math.nan)
    return weight if math.isfinite(weight) else None


def one_group(
    name: str,
    steps: list[int],
    record: StepRecord | TextStep,
    groups: list[Recorded],
    chosen: Recorded,
    room: Room | None = None,
) -> dict[str, Any]:
    """One group of a step that was read; `room` for its pictures is used up."""
    payload = shown_group(record, by_reward(record.samples, chosen.places), room)
    return plain(
        {
            "kind": "group",
            "run": name,
            "steps": steps,
            "prompts": [{"group": g.group, "prompt": g.prompt, "probe": g.probe} for g in groups],
            "group": {**payload, "number": chosen.group, "of": chosen.many, "alone": False},
            "sent": time.time(),
        }
    )


def sign(shelf: RunShelf, name: object) -> Any:
    """What follows a training: another one, and `grown` is asked for."""
    try:
        reader = shelf.open(name)
    except RunError:
        return None
    steps = reader.steps()
    return (str(reader.path), steps[-1] if steps else 0)


@or_in_words(lambda why, *_: {"kind": "steps", "run": None, "steps": [], "sent": time.time()})
def grown(shelf: RunShelf, name: object) -> dict[str, Any]:
    """The steps that there are now; the browser decides whether it goes on to the newest."""
    steps = shelf.open(name).steps()
    return {"kind": "steps", "run": str(name), "steps": steps, "sent": time.time()}


def _film(name: object, prompt: object, **shown: Any) -> dict[str, Any]:
    return {"kind": "film", "run": str(name), "prompt": prompt, "sent": time.time(), **shown}


@or_in_words(lambda why, shelf, name, prompt: _film(name, prompt, notice=["No film", why, ""]))
def film(shelf: RunShelf, name: object, prompt: object) -> dict[str, Any]:
    """One prompt at every recorded step, at most `MAX_FRAMES` of them, on one scale."""
    room = Room()

    def frame(record: StepRecord, place: int) -> tuple[dict[str, Any], SampleView]:
        shown = {**room.sample(record, place), "step": record.step}
        return shown, sample_view(without_pictures(alone(record, place)), 0)

    frames = film_frames(shelf, shelf.open(name), prompt, frame)
    shown = [one for one, _ in frames]
    scale = scale_payload(common_scale([view for _, view in frames]))
    return plain(_film(name, prompt, frames=shown, grid=list(frames[0][1].grid), scale=scale))


def film_frames(
    shelf: RunShelf, reader: RunReader, prompt: object, take: Callable[[StepRecord, int], T]
) -> list[T]:
    """What is taken of the first sample of a prompt at each step that recorded it; see `read_spread`.

    Raises:
        RunError: fewer than two steps recorded it; says which prompt to choose instead.
    """
    found, often = appearances(shelf, reader, prompt)
    wanted = [(step, group.places[0]) for step, group in thinned(found)]
    frames = read_spread(reader, wanted, take)
    if len(frames) < 2:
        hint = f"; choose “{often}”, which comes back at every step" if often else ""
        raise RunError(f"this prompt was recorded at {len(frames)} step(s), a film needs two{hint}")
    return frames


def appearances(
    shelf: RunShelf, reader: RunReader, prompt: object
) -> tuple[list[tuple[int, Recorded]], str | None]:
    """(step, group) of a prompt at each step that recorded it, and a prompt that comes back at every step, if there is one;
    steps that cannot be read are left out, and those that are not known yet where looking takes longer than a visitor waits."""
    found, often = [], None
    until = time.monotonic() + READING_SECONDS
    for step in reader.steps():
        if time.monotonic() > until:
            break
        try:
            groups = shelf.recorded(reader, step)
        except RunError:
            continue
        often = next((g.prompt for g in groups if g.probe), often)
        found += [(step, group) for group in groups if group.prompt == prompt][:1]
    return found, often


@or_in_words(lambda why, *_: {"error": why, "sent": time.time()})
def save(shelf: RunShelf, asked: dict[str, Any]) -> dict[str, Any]:
    """A download: {name, mime, data}, or {error}."""
    reader = shelf.open(asked.get("run"))
    step = nearest(reader.steps(), asked.get("step"))
    record = read_step(reader, step)
    chosen = choose(shelf.recorded(reader, step), asked)
    kind, palettes = asked.get("kind"), chosen_palettes(asked.get("palettes"))
    if isinstance(record, TextStep):
        if kind != "csv":
            raise RunError(f"{kind!r} cannot be downloaded from a run on text; csv can")
        made = text_csv(record, chosen.places)
    elif kind == "csv":
        made = csv_file([(record, chosen.places)])
    elif kind == "png":
        place = asked.get("place")
        place = chosen.places[0] if place is None else place
        made = png_file([(record, chosen.places)], 0, place, palettes)
    elif kind == "gif":
        made = gif_file(film_frames(shelf, reader, chosen.prompt, gif_frame), palettes)
    else:
        raise RunError(f"{kind!r} cannot be downloaded; png, gif and csv can")
    ending, mime, data = made
    parts = [reader.path.name, *([] if kind == "gif" else [f"step{step}"]), slug(chosen.prompt)]
    if kind == "png":
        parts.append(f"sample{chosen.places[0] if asked.get('place') is None else asked['place']}")
    name = "-".join(parts)
    return {"name": f"{name}.{ending}", "mime": mime, "data": data, "sent": time.time()}


def slug(prompt: str) -> str:
    """A prompt as a part of a file's name."""
    return re.sub(r"\W+", "-", prompt)[:48].strip("-_") or "prompt"


def nearest(steps: list[int], wanted: object) -> int:
    """The recorded step next to the wanted one; the newest if none is asked for.

    Raises:
        RunError: nothing is recorded.
    """
    if not steps:
        raise RunError("no step has been recorded yet")
    if not isinstance(wanted, int | float):
        return steps[-1]
    return min(steps, key=lambda step: abs(step - wanted))


def is_alone(shelf: RunShelf, reader: RunReader, group: Recorded, step: int) -> bool:
    """Whether no other step recorded the prompt of a group; False, too, where looking takes longer than a visitor waits."""
    until = time.monotonic() + LOOKING
    for other in reader.steps():
        if group.probe or time.monotonic() > until:
            return False
        with suppress(RunError):
            same = any(one.prompt == group.prompt for one in shelf.recorded(reader, other))
            if same and other != step:
                return False
    return True


def choose(groups: list[Recorded], asked: dict[str, Any]) -> Recorded:
    """The group that was asked for, else one of the same prompt, else the probe, else the liveliest.

    Raises:
        RunError: the step holds no sample.
    """
    if not groups:
        raise RunError("this step holds no sample")
    for group in groups:
        if group.group == asked.get("group"):
            return group
    for group in groups:
        if group.prompt == asked.get("prompt"):
            return group
    probes = [group for group in groups if group.probe and asked.get("prompt")]
    return liveliest(probes or groups)
