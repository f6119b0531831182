"""What the inspector asks of one sample and one place: the likeliest other codes, and the same place through training."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from ..errors import RunError
from ..heatmap.files import thinned
from ..run_folder.alternatives import read_alternatives, read_codes
from ..run_folder.reader import StepRecord
from .credit_maps import appearances
from .payload import Room, encode, picture_url, plain
from .runs import RunShelf, in_words, or_in_words
from .steps import read_spread

MOST_STEPS = 100  # of a place through training
WHOLE = 1 << 12  # pixels of a side: the patches are sent in the size that they have


def _others(asked: dict[str, Any], **shown: Any) -> dict[str, Any]:
    told = {name: asked.get(name) for name in ("run", "step", "place")}
    return {"kind": "others", **told, **shown, "sent": time.time()}


def others_of(
    asked: dict[str, Any], record: StepRecord, place: int, known: Any = None
) -> dict[str, Any]:
    """`others` of a step that was read already.

    Raises:
        RunError: they cannot be read, or there are none.
    """
    found = read_alternatives(record, place, known)
    if found is None:
        raise RunError(f"step {record.step} recorded no other codes")
    taken = record.arrays.get("guided_logprobs")
    return _others(
        asked,
        count=found.codes.shape[1],
        side=found.side,
        codes=encode(found.codes),
        logprobs=encode(found.logprobs),
        taken=None if taken is None else encode(taken[place]),
        pictures=picture_url(found.pictures, WHOLE, exact=512),
    )


def all_others(record: StepRecord, name: str, places: list[int], room: Room) -> list[Any] | None:
    """`others` of several samples of a step of a run, whose codes are read once; None where there is no room for them."""
    asked = [{"run": name, "step": record.step, "place": place} for place in places]
    try:
        known = read_codes(record) if room.left() else None
    except RunError as error:
        return [_others(one, error=in_words(error)) for one in asked]
    added = []
    for one, place in zip(asked, places, strict=True):
        if not room.left():
            return None
        try:
            added.append(others_of(one, record, place, known))
        except RunError as error:
            added.append(_others(one, error=in_words(error)))
        room.take(len(json.dumps(added[-1])))
    return added if room.left() else None


@or_in_words(lambda why, shelf, asked: _others(asked, error=why))
def others(shelf: RunShelf, asked: dict[str, Any]) -> dict[str, Any]:
    """The likeliest other codes at every place of one sample.

    Args:
        shelf: the runs.
        asked: "run", "step" and "place", the sample's number in the step; they come back with the answer.

    Returns:
        `count` K, `side` of a patch in pixels, `codes` (T, K), `logprobs` (T, K) and `taken` (T,), that of the sampled code
        (None where it is unknown), as base64, and `pictures`, K of them below one another; or `error`.
    """
    reader, step, place = shelf.open(asked.get("run")), asked.get("step"), asked.get("place")
    if not isinstance(step, int):
        raise RunError(f"{step!r} is no recorded step")
    record = reader.step(step)
    if type(place) is not int or not 0 <= place < len(record.samples):
        raise RunError(f"step {step} holds no sample {place!r:.60}")
    return others_of(asked, record, place)


def _row(record: StepRecord, place: int) -> dict[str, Any]:
    """Of one step, without the memory of its other samples."""
    advantage, credit = record.samples[place]["advantage"], record.arrays["credit"][place].copy()
    about = {"step": record.step, "place": place, "grid": record.grid}
    return {**about, "advantage": advantage, "credit": credit}


def _through(asked: dict[str, Any], **shown: Any) -> dict[str, Any]:
    told = {name: asked.get(name) for name in ("run", "prompt", "number")}
    return {"kind": "through", **told, **shown, "sent": time.time()}


@or_in_words(lambda why, shelf, asked: _through(asked, error=why))
def through(shelf: RunShelf, asked: dict[str, Any]) -> dict[str, Any]:
    """One sample of a prompt at every recorded step: the credit of each of its tokens, and its advantage.

    At most `MOST_STEPS` at equal distances; where reading takes longer than `steps.READING_SECONDS`, as many of them as were read,
    which are spread over the run too.

    Args:
        shelf: the runs.
        asked: "run", "prompt", and "number", the sample's place in its group; they come back with the answer.

    Returns:
        `steps`, their samples' `places` in the step and `advantages`, `credit` (steps, T) as base64, `same`, whether the noise
        is the same at every step, `known`, how many steps recorded the prompt; or `error`.
    """
    reader, number = shelf.open(asked.get("run")), asked.get("number")
    if type(number) is not int or number < 0:
        raise RunError(f"{number!r:.60} is no place in a group")
    found, _ = appearances(shelf, reader, asked.get("prompt"))
    there = [(step, group) for step, group in found if number < len(group.places)]
    if not there:
        raise RunError("no step recorded this prompt")
    places = [(step, group.places[number]) for step, group in thinned(there, MOST_STEPS)]
    read = read_spread(reader, places, _row)
    if not read:
        raise RunError("no step that recorded this prompt can be read")
    read = [one for one in read if one["grid"] == read[-1]["grid"]]
    shown = {
        "steps": [one["step"] for one in read],
        "places": [one["place"] for one in read],
        "advantages": [one["advantage"] for one in read],
        "credit": encode(np.stack([one["credit"] for one in read])),
        "same": all(group.probe for _, group in there),
        "known": len(there),
    }
    return dict(plain(_through(asked, **shown)))
