"""The training tab: one run, live. Status, curves, and the newest group of samples with its credit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import UserError
from ..run_reader import RunReader
from . import components, words
from .charts import training_figures
from .payload import plain
from .runs import RunShelf, groups_of, in_words, liveliest
from .steps import read_step, shown_group
from .texts import is_text

Seen = tuple[Any, ...]


@dataclass(frozen=True)
class TrainingTab:
    """The components of the tab."""

    status: gr.HTML
    newest: gr.HTML
    curves: gr.HTML
    seen: gr.State

    @property
    def outputs(self) -> list[Any]:
        return [self.status, self.newest, self.curves, self.seen]


def build() -> TrainingTab:
    """Lays out the tab."""
    status = components.plain(elem_id="training-status")
    newest = components.group("training-newest")
    curves = components.charts("training-curves")
    return TrainingTab(status, newest, curves, gr.State(()))


def update(shelf: RunShelf, name: object, seen: Seen) -> list[Any]:
    """Values of `TrainingTab.outputs`; what did not change since `seen` is left alone, so that nothing flickers."""
    try:
        if not name and not shelf.statuses():
            return _replaced(words.no_runs(str(shelf.root)), "no runs", seen)
        reader = shelf.open(name)
        return _update(shelf, reader, seen)
    except (UserError, OSError) as error:
        box = words.notice("This run cannot be shown", in_words(error), kind="error")
        return _replaced(box, in_words(error), seen)


def _replaced(box: str, why: str, seen: Seen) -> list[Any]:
    if seen == (why,):
        return [gr.skip()] * 4
    empty = {"groups": [], "key": why}
    return [box, empty, {"figures": [], "sent": time.time()}, (why,)]


def _update(shelf: RunShelf, reader: RunReader, seen: Seen) -> list[Any]:
    status = reader.status()
    steps = reader.steps()
    signs = (
        str(reader.path),
        _size(reader, "metrics.jsonl"),
        steps[-1] if steps else 0,
        status.state,
    )
    same = [a == b for a, b in zip(signs, seen, strict=False)] if len(seen) == len(signs) else []
    changed_run = not same or not same[0]
    metrics: Any = None
    if changed_run or not same[1] or not same[3]:
        metrics = shelf.metrics(reader)
    strip: Any = gr.skip() if metrics is None else words.status_strip(status, metrics)
    figures: Any = gr.skip()
    if metrics is not None:
        figures = plain({"figures": training_figures(metrics)})
        if not metrics:
            figures = components.note(
                "No step yet", "The curves begin with the first finished step."
            )
    newest: Any = gr.skip() if same and same[0] and same[2] else newest_group(reader, steps)
    return [strip, newest, figures, signs]


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
            samples = payload["samples"]
            mean = sum(s["reward"] or 0.0 for s in samples) / len(samples)
            says = f"step {step}: the newest recorded group, best reward first · mean reward {mean:.2f}"
            pushed = payload["scale"]["advantage"] > 0
            if not pushed:
                says += " · all alike, so nothing is pushed: the map is the credit alone"
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
    value = sample["reward"]
    return float(value) if isinstance(value, int | float) else float("-inf")


def _size(reader: RunReader, name: str) -> int:
    try:
        return (reader.path / name).stat().st_size
    except OSError:
        return -1
