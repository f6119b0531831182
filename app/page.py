"""The page: header, choice of the run, five tabs, and what asks whom. Draws nothing itself."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import compare, components, credit_maps, evaluation, playground, training
from .components import QUIET
from .runs import RunShelf

EVERY = 2.0  # seconds between two looks at the run
TABS = {
    "training": "Training",
    "maps": "Credit maps",
    "playground": "Playground",
    "compare": "Compare",
    "evaluation": "Evaluation",
}


def build_page(shelf: RunShelf) -> gr.Blocks:
    """The whole page over one runs folder."""
    with gr.Blocks(title="t2i-credit", analytics_enabled=False, fill_width=True) as page:
        components.header()
        run = gr.Dropdown(
            label="Run",
            choices=[],
            elem_id="run",
            filterable=True,
        )
        known = gr.State(None)  # what was listed; None until the page has loaded
        active = gr.State("training")
        clock = gr.Timer(EVERY)
        with gr.Tabs(elem_id="tabs"):
            opened = {}
            with gr.Tab(TABS["training"], id="training") as opened["training"]:
                live = training.build()
            with gr.Tab(TABS["maps"], id="maps") as opened["maps"]:
                maps, files = credit_maps.build()
            with gr.Tab(TABS["playground"], id="playground") as opened["playground"]:
                play = playground.build(shelf)
            with gr.Tab(TABS["compare"], id="compare") as opened["compare"]:
                versus = compare.build(shelf)
            with gr.Tab(TABS["evaluation"], id="evaluation") as opened["evaluation"]:
                scores = evaluation.build(shelf, run)

        shown = [run, known, *live.outputs]

        def first() -> list[Any]:
            """What the page begins with: the newest run."""
            choice, now, chosen = chosen_run(shelf, None, [])
            return [choice, now, *training.update(shelf, chosen, ())]

        def look(name: str | None, before: list[Any] | None, seen: tuple[Any, ...]) -> list[Any]:
            """What a tick of the clock brings: new runs, and what changed in the chosen one."""
            if before is None or (before and name is None):
                return [gr.skip()] * len(shown)  # asked before `first` came; would undo a choice
            choice, now, chosen = chosen_run(shelf, name, before)
            return [choice, now, *training.update(shelf, chosen, seen)]

        beat = {"fn": look, "inputs": [run, known, live.seen], "outputs": shown, **QUIET}
        page.load(first, None, shown, **QUIET)
        clock.tick(**beat)

        def choose(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.show(shelf, name, dict(asked._data or {}))

        def film(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.film(shelf, name, (asked._data or {}).get("prompt"))

        def save(asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.save(shelf, dict(asked._data or {}))

        maps.choose(choose, run, maps, trigger_mode="always_last", **QUIET)
        maps.film(film, run, maps, **QUIET)
        maps.save(save, None, files, **QUIET)

        for name, tab in opened.items():
            tab.select(
                lambda name=name: (name, gr.Timer(active=name == "training")),
                None,
                [active, clock],
                **QUIET,
            )
        opened["training"].select(**beat)
        opened["maps"].select(lambda name: credit_maps.show(shelf, name, {}), run, maps, **QUIET)
        opened["playground"].select(play.open, None, play.models, **QUIET)
        opened["compare"].select(versus.refresh, versus.chosen, versus.outputs, **QUIET)
        opened["evaluation"].select(scores.refresh, run, scores.outputs, **QUIET)

        def changed(name: str | None, where: str) -> list[Any]:
            """Another run was chosen: the open tab shows it."""
            first: list[Any] = [gr.skip()] * len(live.outputs)
            if where == "training":
                first = training.update(shelf, name, ())
            second = credit_maps.show(shelf, name, {}) if where == "maps" else gr.skip()
            third: list[Any] = [gr.skip()] * len(scores.outputs)
            if where == "evaluation":
                third = scores.refresh(name)
            return [*first, second, *third]

        run.input(changed, [run, active], [*live.outputs, maps, *scores.outputs], **QUIET)
    return page


def chosen_run(
    shelf: RunShelf, name: str | None, before: list[Any]
) -> tuple[Any, list[Any], str | None]:
    """The update of the choice of runs, what was listed, and the chosen run. A choice is kept as long as its run is
    there; the list is sent only when it changed, and the choice is left to the page, which may know a later one."""
    listed = [list(choice) for choice in shelf.choices(shelf.statuses())]
    names = [value for _, value in listed]
    chosen = name if name in names else (names[0] if names else None)
    if listed == before and chosen == name:
        return gr.skip(), before, chosen
    choices = [(label, value) for label, value in listed]
    if chosen == name:
        return gr.Dropdown(choices=choices), listed, chosen
    return gr.Dropdown(choices=choices, value=chosen), listed, chosen
