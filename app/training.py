"""The training tab: one run, live. Status, curves, and the newest group of samples with its credit."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from ..errors import RunError, UserError
from ..run_folder.reader import RunReader
from . import components, words
from .charts import training_figures
from .payload import plain
from .runs import (
    RunShelf,
    groups_of,
    in_words,
    known_numbers,
    liveliest,
    mean_in_words,
    or_in_words,
)
from .steps import read_step, shown_group
from .texts import is_text

Sign = tuple[Any, ...]


@dataclass(frozen=True)
class TrainingTab:
    """The components of the tab, and the signs of what they show: another sign, and the page asks for it anew."""

    status: gr.HTML
    newest: gr.HTML
    curves: gr.HTML
    about: gr.HTML
    signs: tuple[gr.State, gr.State, gr.State]


def build() -> TrainingTab:
    """Lays out the tab."""
    status = components.plain(elem_id="training-status")
    about = components.plain(elem_id="training-about")
    newest = components.group("training-newest")
    curves = components.charts("training-curves")
    signs = (gr.State(None), gr.State(None), gr.State(None))
    return TrainingTab(status, newest, curves, about, signs)


@or_in_words(lambda why, shelf, name: [(name, why)] * 3)
def signs(shelf: RunShelf, name: object) -> list[Sign]:
    """What status and curves, the newest group, and the box about the run were made of: equal as long as nothing has changed, so that
    nothing is sent or drawn again."""
    reader = shelf.open(name)
    state, steps = reader.status().state, reader.steps()
    size = _size(reader, "metrics.jsonl")
    path, settings = str(reader.path), _size(reader, "config.yaml")
    return [(path, state, size), (path, steps[-1] if steps else 0), (path, settings)]


def _no_numbers(why: str, *_: object) -> list[Any]:
    return [words.notice("This run cannot be shown", why, kind="error"), _no_curves()]


@or_in_words(_no_numbers)
def numbers(shelf: RunShelf, name: object, resumes: bool = False) -> list[Any]:
    """The values of `status` and `curves`; `resumes`: the page has a button for it."""
    if not name and not shelf.statuses():
        return [words.no_runs(shelf.root), _no_curves()]
    reader = shelf.open(name)
    metrics = shelf.metrics(reader)
    status = reader.status()
    if resumes:
        status = replace(status, message=words.on_page(status.message))
    strip = words.status_strip(status, metrics)
    if not metrics:
        says = "The curves begin with the first finished step."
        return [strip, components.note("No step yet", says)]
    return [strip, plain({"figures": training_figures(metrics)})]


@or_in_words(lambda why, *_: components.note("The newest samples cannot be shown", why))
def newest(shelf: RunShelf, name: object) -> dict[str, Any]:
    """The value of `newest`; nothing where `numbers` says why."""
    try:
        reader = shelf.open(name)
    except RunError as error:
        return {"groups": [], "key": in_words(error)}
    return newest_group(reader, reader.steps())


def _no_curves() -> dict[str, Any]:
    return {"figures": [], "sent": time.time()}


def newest_group(reader: RunReader, steps: list[int]) -> dict[str, Any]:
    """The group with the widest spread of rewards of the newest recorded step that can be read, best reward first."""
    if not steps:
        kind, many = ("answer", "answers") if is_text(reader) else ("picture", "images")
        says = f"The first recorded step brings the first group of {many}."
        return components.note(f"No {kind} yet", says)
    troubles = []
    for step in steps[:-4:-1]:  # a step that is just being replaced, or was damaged
        try:
            record = read_step(reader, step)
            group = liveliest(groups_of(reader, step))
            payload = shown_group(record, by_reward(record.samples, group.places))
            mean = mean_in_words(sample["reward"] for sample in payload["samples"])
            says = f"step {step}: the newest recorded group, best reward first · mean reward {mean}"
            pushed = payload["scale"]["advantage"] > 0
            if not pushed:
                says += " · all rewards alike, so nothing is pushed: the map is the credit alone"
            payload["says"] = says
            key = f"{reader.path}@{step}"
            shown = "token_advantages" if pushed else "credit"
            return plain({"groups": [payload], "map": shown, "key": key})
        except UserError as error:
            troubles.append(in_words(error))
    return components.note("The newest samples cannot be shown", troubles[0])


def by_reward(samples: list[dict[str, Any]], places: tuple[int, ...]) -> list[int]:
    """The places, best reward first; a reward that was not finite comes last."""
    return sorted(places, key=lambda place: -_reward(samples[place]))


def _reward(sample: dict[str, Any]) -> float:
    return next(iter(known_numbers([sample["reward"]])), float("-inf"))


def _size(reader: RunReader, name: str) -> int:
    try:
        return (reader.path / name).stat().st_size
    except OSError:
        return -1
