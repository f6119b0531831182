"""The compare tab: runs over one another, seeds of one method as a band, tasks side by side, and the same prompt under
each run with its credit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import RunError, UserError
from ..heatmap.sample import common_scale
from ..run_folder.reader import RunReader
from . import components
from .figures import Metrics, comparison_figure, task_bars
from .methods import methods_of, seed_of
from .payload import plain, sample_payload, scale_payload, view_of
from .runs import RunShelf, in_words, mean_in_words, or_in_words
from .texts import is_text

FIRST = 4  # methods chosen when the tab opens
LOOKED_AT = 24  # newest runs, out of which they are chosen
PER_RUN = 6  # samples of the same prompt
METRICS = {
    "reward": "mean reward of the step's samples",
    "reward_spread": "standard deviation of the reward within a group",
    "entropy": "nats per token",
    "answer_length": "runs on text: tokens of an answer, its end token included",
    "truncated": "runs on text: share of answers cut off at the longest length allowed",
    "diversity": "share of positions where two images of a prompt differ",
    "signed_contrast": "mean of log p(prompt) − log p(negative), nats",
    "kl": "to the frozen reference, nats per token",
    "time/step": "seconds of a step",
}


@dataclass(frozen=True)
class CompareTab:
    """The tab, and how it follows the choice of runs."""

    shelf: RunShelf
    chosen: list[Any]
    outputs: list[Any]

    def refresh(self, names: list[str] | None, metric: str, prompt: str | None) -> list[Any]:
        """Values of `outputs` when the tab is opened: the first runs are chosen when none is."""
        return update(self.shelf, names or None, metric, prompt)

    def choose(self, names: list[str] | None, metric: str, prompt: str | None) -> list[Any]:
        """Values of `outputs` after a choice, which may be no run at all."""
        return update(self.shelf, names or (), metric, prompt)


def build(shelf: RunShelf) -> CompareTab:
    """Lays out the tab and connects it."""
    with gr.Row():
        runs = gr.Dropdown(
            [], multiselect=True, label="Runs", elem_id="compare-runs", scale=3, min_width=260
        )
        metric = gr.Dropdown(
            list(METRICS), value="reward", label="Curve", elem_id="compare-metric", min_width=160
        )
    curves = components.charts("compare-curves")
    prompt = gr.Dropdown(
        [],
        label="The same prompt under each run",
        elem_id="compare-prompt",
        info="probes come back at every recorded step and are never trained on; runs of one seed draw them from the same noise",
    )
    pictures = components.group("compare-pictures")
    tab = CompareTab(shelf, [runs, metric, prompt], [runs, curves, prompt, pictures])
    for component in tab.chosen:
        component.input(tab.choose, tab.chosen, tab.outputs, **components.READING)
    return tab


def _failed(why: str, *_: object) -> list[Any]:
    note = components.note("These runs cannot be compared", why)
    return [gr.skip(), note, gr.skip(), _nothing()]


@or_in_words(_failed)
def update(
    shelf: RunShelf, names: Sequence[str] | None, metric: str, prompt: str | None
) -> list[Any]:
    """Values of `CompareTab.outputs`; `names` None: the first runs are chosen."""
    statuses = shelf.statuses()
    known = [status.path.name for status in statuses if status.state != "unreadable"]
    if not known:
        empty = components.note(
            "No run here yet",
            "Train two recipes, then compare them.",
            "t2i-credit train shapes/gcpo",
        )
        return [
            gr.Dropdown(choices=[], value=[], multiselect=True),
            empty,
            gr.Dropdown(choices=[]),
            _nothing(),
        ]
    chosen = first_methods(shelf, known) if names is None else [n for n in names if n in known]
    if not chosen:
        empty = components.note("No run is chosen", "Choose one or more in the list above.")
        cleared = gr.Dropdown(choices=known, value=[], multiselect=True)
        return [cleared, empty, gr.Dropdown(choices=[]), _nothing()]
    readers, troubles = [], []
    for name in chosen:
        try:
            readers.append(shelf.open(name))
        except (UserError, OSError) as error:
            troubles.append(in_words(error))
    curves = curves_value(readers, metric if metric in METRICS else "reward")
    curves["said"] = "; ".join(filter(None, [*troubles, curves["said"]]))
    drawn = [reader for reader in readers if not is_text(reader)]
    prompts = common_prompts(shelf, drawn)
    asked = prompt if prompt in prompts else next(iter(prompts), None)
    pictures = pictures_value(shelf, drawn, asked)
    if readers and not drawn:
        pictures = components.note(
            "No picture to compare",
            "A run on text has curves here, and its answers under Credit maps.",
        )
    return [
        gr.Dropdown(choices=known, value=chosen, multiselect=True),
        curves,
        gr.Dropdown(choices=prompts, value=asked),
        pictures,
    ]


def first_methods(shelf: RunShelf, names: Sequence[str]) -> list[str]:
    """The runs of the newest methods, all their seeds: what is chosen when nothing is."""
    readers = []
    for name in names[:LOOKED_AT]:
        with suppress(UserError, OSError):
            readers.append(shelf.open(name))
    return [r.path.name for method in methods_of(readers)[:FIRST] for r in method.seeds]


def curves_value(readers: Sequence[RunReader], metric: str) -> dict[str, Any]:
    """The chosen curve, and bars for each evaluation that these runs have; `said`: which runs are left out, and why."""
    curves: dict[str, Sequence[Metrics]] = {}
    evaluations: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    troubles = []
    for method in methods_of(readers):
        seeds = []
        for reader in method.seeds:
            try:
                seeds += [metrics] if (metrics := reader.metrics(strict=False)) else []
            except RunError as error:
                troubles.append(in_words(error))
        if seeds:
            curves[method.name] = seeds
        for name, scores in method.evaluations().items():
            evaluations.setdefault(name, {})[method.name] = scores
            kinds[name] = "answers" if is_text(method.seeds[0]) else "images"
    title = f"{metric.replace('_', ' ').replace('/', ': ')}".capitalize()
    figures = [comparison_figure(curves, metric, title, METRICS[metric])]
    for name, by_method in evaluations.items():
        says = "with 95% intervals: over prompts, of several seeds over seeds"
        bars = task_bars(by_method, says)
        bars["layout"] |= {"height": 230}
        figures.append({**bars, "title": f"Correct {kinds[name]}: {name}", "wide": False})
    return plain({"figures": figures, "said": "; ".join(troubles), "sent": time.time()})


def common_prompts(shelf: RunShelf, readers: Sequence[RunReader]) -> list[str]:
    """Prompts that the newest recorded steps of most runs have in common, probes first, those with most to see first."""
    counts: dict[str, tuple[int, bool, float]] = {}
    for reader in readers:
        try:
            steps = reader.steps()
            groups = shelf.recorded(reader, steps[-1]) if steps else []
        except UserError:
            continue
        for group in {g.prompt: g for g in groups}.values():
            count, probe, spread = counts.get(group.prompt, (0, False, 0.0))
            counts[group.prompt] = count + 1, probe or group.probe, spread + group.spread
    return sorted(counts, key=lambda p: (-counts[p][0], not counts[p][1], -counts[p][2]))


def pictures_value(
    shelf: RunShelf, readers: Sequence[RunReader], prompt: str | None
) -> dict[str, Any]:
    """A row per method, of its first seed: the first samples of the prompt at the newest recorded step, one scale."""
    if prompt is None:
        return components.note(
            "No prompt in common", "These runs have not recorded a prompt that can be compared."
        )
    rows: list[dict[str, Any]] = []
    views, troubles, pushed = [], [], True
    for reader in (method.seeds[0] for method in methods_of(readers)):
        try:
            steps = reader.steps()
            group = (
                next((g for g in shelf.recorded(reader, steps[-1]) if g.prompt == prompt), None)
                if steps
                else None
            )
            if group is None:
                continue
            record = reader.step(steps[-1])
            found = [(place, view_of(record, place)) for place in group.places[:PER_RUN]]
        except UserError as error:
            troubles.append(in_words(error))
            continue
        views += [view for _, view in found]
        pushed &= common_scale([view for _, view in found]).advantage > 0
        mean = mean_in_words(group.rewards)
        says = f"step {record.step}, seed {seed_of(reader)} · mean reward {mean}"
        samples = [sample_payload(record, place, view) for place, view in found]
        rows.append(
            {
                "prompt": reader.path.name,
                "says": says,
                "grid": list(record.grid),
                "samples": samples,
            }
        )
    if not rows:
        return components.note("Nothing to compare", "; ".join(troubles))
    scale = scale_payload(common_scale(views))
    rows = [{**row, "scale": scale} for row in rows]
    key = f"{prompt}:{[(row['prompt'], row['says']) for row in rows]}"
    # where one group is all alike nothing is pushed, and its row of token advantages would be blank
    shown = "token_advantages" if pushed else "credit"
    return plain({"groups": rows, "map": shown, "key": key})


def _nothing() -> dict[str, Any]:
    return {"groups": [], "key": "nothing"}
