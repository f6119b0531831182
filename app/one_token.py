"""What the inspector asks of one sample and one place: the likeliest other codes, and the same place through training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import RunError
from ..heatmap.files import thinned
from ..run_folder.alternatives import read_alternatives
from .credit_maps import appearances
from .payload import encode, picture_url, plain
from .runs import RunShelf, or_in_words

MOST_STEPS = 100  # of a place through training
READING_SECONDS = 4.0  # after which no further step of it is read
WHOLE = 1 << 12  # pixels of a side: the patches are sent in the size that they have


def _others(asked: dict[str, Any], **shown: Any) -> dict[str, Any]:
    told = {name: asked.get(name) for name in ("run", "step", "place")}
    return {"kind": "others", **told, **shown, "sent": time.time()}


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
    found = read_alternatives(record, place)
    if found is None:
        raise RunError(f"step {step} recorded no other codes")
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


def _through(asked: dict[str, Any], **shown: Any) -> dict[str, Any]:
    told = {name: asked.get(name) for name in ("run", "prompt", "number")}
    return {"kind": "through", **told, **shown, "sent": time.time()}


@or_in_words(lambda why, shelf, asked: _through(asked, error=why))
def through(shelf: RunShelf, asked: dict[str, Any]) -> dict[str, Any]:
    """One sample of a prompt at every recorded step: the credit of each of its tokens, and its advantage.

    At most `MOST_STEPS` at equal distances; where reading takes longer than `READING_SECONDS`, as many of them as were read,
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
    wanted = thinned(there, MOST_STEPS)
    until, read = time.monotonic() + READING_SECONDS, []
    for i in coarse_first(len(wanted)):
        step, group = wanted[i]
        try:
            read.append((reader.step(step), group.places[number]))
        except RunError:
            continue  # its own line is said where the step is chosen
        if time.monotonic() > until:
            break
    read.sort(key=lambda one: one[0].step)
    if not read:
        raise RunError("no step that recorded this prompt can be read")
    grid = read[-1][0].grid
    read = [(record, place) for record, place in read if record.grid == grid]
    shown = {
        "steps": [record.step for record, _ in read],
        "places": [place for _, place in read],
        "advantages": [record.samples[place]["advantage"] for record, place in read],
        "credit": encode(np.stack([record.arrays["credit"][place] for record, place in read])),
        "same": all(group.probe for _, group in there),
        "known": len(there),
    }
    return dict(plain(_through(asked, **shown)))


def coarse_first(many: int) -> Sequence[int]:
    """0 to many - 1, the last and the first at first, then what halves the distances: wherever it is cut off, the rest is spread evenly."""
    last = many - 1
    return sorted(range(many), key=lambda i: (i not in (0, last), -(i & -i)))
