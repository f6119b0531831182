"""The compare tab: which runs, which curve, which prompt; what it shows follows these and the runs while they go on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import UserError
from ..run_folder.reader import RunReader
from . import components, links
from .compared import (
    METRICS,
    common_prompts,
    common_steps,
    curve_names,
    curves_value,
    difference_table,
    evaluation_times,
    pictures_value,
)
from .figures import AXES
from .methods import methods_of
from .payload import plain
from .runs import RunShelf, in_words, or_in_words
from .texts import is_text
from .words import train_command

FIRST = 4  # methods chosen when the tab opens
LOOKED_AT = 24  # newest runs, out of which they are chosen
SMOOTHING = [("automatic", 0), ("none", 1), ("10 steps", 10), ("30 steps", 30), ("100 steps", 100)]
TEXT_ALONE = "A run on text has curves here, and its answers under Credit maps."


@dataclass(frozen=True)
class CompareTab:
    """The tab.

    Attributes:
        shelf: the runs.
        chosen: what says what is shown: runs, curve, smoothing, axis, prompt, step.
        runs: the choice of runs.
        fields: {name in the page's address: component} of what is chosen.
        signs: of what is shown; another sign, and the page asks for it anew (see training.py).
    """

    shelf: RunShelf
    chosen: list[Any]
    runs: gr.Dropdown
    fields: dict[str, Any]
    signs: list[gr.State]

    def look(self, known: Sequence[str], *chosen: Any) -> dict[Any, Any]:
        """Signs of the list of runs, of what is chosen, of the curves and of the pictures."""
        return dict(zip(self.signs, signs(self.shelf, tuple(known), *chosen), strict=True))

    def restored(self, address: object, known: Sequence[str]) -> dict[Any, Any]:
        """What is compared, as an address has it."""
        if not isinstance(address, Mapping):
            return {}
        named = [address.get(name) for name in ("curve", "compared")]
        curve, compared = ([one] if isinstance(one, str) else [] for one in named)
        offered = {"runs": list(known), "curve": curve, "compared": compared}
        found = links.restored(self.fields, address, offered)
        at = address.get("at", "")
        if isinstance(at, str) and re.fullmatch(r"\d{1,9}", at):
            found[self.chosen[-1]] = int(at)
        return found

    def first(self, run: str | None, known: Sequence[str], *chosen: Any) -> dict[Any, Any]:
        """`look`, when the tab is opened for the first time: the run of the page and the newest others are chosen, unless an
        address has chosen."""
        order = [run, *known] if run is not None and run in known else known
        names = chosen[0] or first_methods(self.shelf, list(dict.fromkeys(order)))
        listed = gr.Dropdown(choices=list(known), value=names, multiselect=True)
        return {self.runs: listed, **self.look(known, names, *chosen[1:])}


def build(shelf: RunShelf) -> CompareTab:
    """Lays out the tab and connects it."""
    with gr.Row():
        runs = gr.Dropdown(
            [],
            multiselect=True,
            label="Runs",
            elem_id="compare-runs",
            scale=4,
            min_width=260,
            num_choices_shown=components.ALL,
        )
        metric = gr.Dropdown(
            list(METRICS), value="reward", label="Curve", elem_id="compare-metric", min_width=160
        )
        smoothing = gr.Dropdown(
            SMOOTHING, value=0, label="Smoothing", elem_id="compare-smoothing", min_width=130
        )
        axis = gr.Dropdown(
            [("steps", "step"), ("images", "images"), ("time", "time")],
            value="step",
            label="Along",
            elem_id="compare-axis",
            min_width=110,
        )
    curves = components.charts("compare-curves")
    table = components.plain(elem_id="compare-differences")
    prompt = gr.Dropdown(
        [],
        label="The same prompt under each run",
        elem_id="compare-prompt",
        num_choices_shown=components.ALL,
        info="probes come back at every recorded step and are never trained on; runs of one seed draw them from the same noise",
    )
    pictures = components.versus("compare-pictures")
    step = gr.State(None)  # None = the newest that they have in common is followed
    listed, picked, drawn, recorded = (gr.State(None) for _ in range(4))
    chosen = [runs, metric, smoothing, axis, prompt, step]
    names = ("runs", "curve", "smoothing", "along", "compared")
    fields = dict(zip(names, chosen[:-1], strict=True))
    links.keep(fields, always=("runs", "compared"))
    tab = CompareTab(shelf, chosen, runs, fields, [listed, picked, drawn, recorded])

    def follow(*values: Any) -> list[Any]:
        return signs(shelf, *values)

    def go_to(
        known: Any,
        names: Any,
        metric: Any,
        smoothing: Any,
        axis: Any,
        prompt: Any,
        asked: gr.EventData,
    ) -> list[Any]:
        wanted = components.asked_for(asked).get("step")
        at = wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else None
        return [at, *signs(shelf, known, names, metric, smoothing, axis, prompt, at)]

    for component in (runs, metric, smoothing, axis, prompt):
        component.input(follow, [listed, *chosen], tab.signs, **components.READING)
    pictures.pick(
        go_to,
        [listed, *chosen[:-1]],
        [step, *tab.signs],
        **components.EACH,
        **components.READING,
    )
    quick, slow = components.QUIET, components.READING
    listed.change(offered, listed, runs, **quick)
    picked.change(lambda *values: about(shelf, *values), [runs, metric], [metric, table], **slow)
    asks = [runs, metric, smoothing, axis]
    drawn.change(lambda *values: curves_of(shelf, *values), asks, curves, **slow)
    recorded.change(
        lambda *values: pictures_of(shelf, *values),
        [runs, prompt, step],
        [prompt, pictures],
        **slow,
    )
    return tab


def offered(names: Sequence[str] | None) -> Any:
    """The list of runs to choose from; as it is until one has been read."""
    return gr.skip() if names is None else gr.Dropdown(choices=list(names))


@or_in_words(lambda why, _, known, *__: [tuple(known or ()), *[(why,)] * 3])
def signs(
    shelf: RunShelf,
    known: Sequence[str] | None,
    names: Sequence[str] | None,
    metric: object,
    smoothing: object,
    axis: object,
    prompt: object,
    step: object,
) -> list[tuple[Any, ...]]:
    """What the list of runs, choices and table, the curves, and the pictures are made of: equal as long as nothing changed."""
    chosen = tuple(names or ())
    begun: list[bool] = []
    grown: list[Any] = []
    recorded: list[tuple[int, ...]] = []
    for name in chosen:
        try:
            reader = shelf.open(name)
            size = (reader.path / "metrics.jsonl").stat().st_size
            steps = reader.steps()
        except (UserError, OSError) as error:
            size, steps, reader = -1, [], None
            grown.append(in_words(error))
        begun.append(size > 0)
        grown.append((size, tuple(evaluation_times(reader).items()) if reader else ()))
        recorded.append(tuple(steps[-1:]))
    return [
        tuple(known or ()),
        (chosen, tuple(begun)),
        (chosen, metric, smoothing, axis, tuple(grown)),
        (chosen, prompt, step, tuple(recorded)),
    ]


def opened(shelf: RunShelf, names: Sequence[str] | None) -> tuple[list[RunReader], list[str]]:
    """The runs of these names, and a line for each that cannot be opened."""
    readers, troubles = [], []
    for name in names or ():
        try:
            readers.append(shelf.open(name))
        except (UserError, OSError) as error:
            troubles.append(in_words(error))
    return readers, troubles


@or_in_words(lambda why, *_: [gr.Dropdown(choices=list(METRICS)), ""])
def about(shelf: RunShelf, names: Sequence[str] | None, metric: str) -> list[Any]:
    """The curves to choose from, and the table of what differs."""
    readers, _ = opened(shelf, names)
    offered = curve_names(shelf, readers)
    return [
        gr.Dropdown(choices=list(dict.fromkeys([*offered, metric]))),
        difference_table(readers),
    ]


@or_in_words(lambda why, *_: components.note("These runs cannot be compared", why))
def curves_of(
    shelf: RunShelf, names: Sequence[str] | None, metric: object, smoothing: object, axis: object
) -> dict[str, Any]:
    """The value of the charts."""
    if not names:
        if shelf.statuses():
            return components.note("No run is chosen", "Choose one or more in the list above.")
        says = "Train two recipes, then compare them."
        return components.note("No run here yet", says, train_command(shelf.root))
    readers, troubles = opened(shelf, names)
    over = next((value for _, value in SMOOTHING if value == smoothing), 0)
    along = str(axis) if axis in AXES else "step"
    shown = curves_value(shelf, readers, str(metric or "reward"), along, over)
    return shown | {"said": "; ".join(filter(None, [*troubles, shown["said"]]))}


@or_in_words(lambda why, *_: [gr.Dropdown(), components.note("No picture to compare", why)])
def pictures_of(
    shelf: RunShelf, names: Sequence[str] | None, prompt: object, step: object
) -> list[Any]:
    """The choice of prompts, and the value of the pictures."""
    readers, _ = opened(shelf, names)
    drawn = [reader for reader in readers if not is_text(reader)]
    if not drawn:
        nothing: dict[str, Any] = {"groups": [], "key": "nothing"}
        if readers:
            nothing = components.note("No picture to compare", TEXT_ALONE)
        return [gr.Dropdown(choices=[], value=None), nothing]
    steps = common_steps(drawn)
    at = step if isinstance(step, int) and step in steps else next(iter(steps[-1:]), None)
    prompts = common_prompts(shelf, drawn, at)
    asked = prompt if isinstance(prompt, str) and prompt in prompts else next(iter(prompts), None)
    shown = pictures_value(shelf, readers, asked, at, steps)
    texts = [reader.path.name for reader in readers if is_text(reader)]
    if texts and "told" in shown:
        shown["told"] = f"{shown['told']} On text, so without pictures: {', '.join(texts)}.".strip()
    return [gr.Dropdown(choices=prompts, value=asked), plain(shown)]


def first_methods(shelf: RunShelf, names: Sequence[str]) -> list[str]:
    """The runs of the newest methods, all their seeds: what is chosen when nothing is."""
    readers = []
    for name in names[:LOOKED_AT]:
        with suppress(UserError, OSError):
            readers.append(shelf.open(name))
    return [r.path.name for method in methods_of(readers)[:FIRST] for r in method.seeds]
