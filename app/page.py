"""The page: header, choice of the run, five tabs, and what asks whom. Draws nothing itself."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import compare, components, credit_maps, evaluation, playground, training
from .components import ALL, QUIET, READING, asked_for
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
        with gr.Row(elem_id="top"):
            components.header()
            run = gr.Dropdown(
                label="Run", choices=[], elem_id="run", container=False, num_choices_shown=ALL
            )
        known = gr.State(None)  # what was listed; None until the page has loaded
        active = gr.State("training")
        asked = gr.JSON(visible=False)
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

        # Gradio keeps one more component, with what it showed, for each update of it, and a skipped output is an update
        # too: so the clock brings states alone, and their changes bring what is to be shown, always whole.
        signs = [known, *live.signs]

        def first() -> list[Any]:
            """What the page begins with: the newest run."""
            now = listed(shelf)
            return [offer(None, now), now, *training.signs(shelf, chosen_run(None, now))]

        def look(name: str | None, before: list[Any] | None) -> Any:
            """What a tick of the clock brings: the runs there are, and whether the chosen one has changed."""
            if before is None or (before and name is None):
                return gr.skip()  # asked before `first` came; answered later it would undo that
            now = listed(shelf)
            return [now, *training.signs(shelf, chosen_run(name, now))]

        def numbers(name: str | None, now: list[Any]) -> list[Any]:
            return training.numbers(shelf, chosen_run(name, now))

        def newest(name: str | None, now: list[Any]) -> dict[str, Any]:
            return training.newest(shelf, chosen_run(name, now))

        beat = {"fn": look, "inputs": [run, known], "outputs": signs, **QUIET}
        page.load(first, None, [run, *signs], **QUIET)
        clock.tick(**beat)
        known.change(offer, [run, known], run, **QUIET)
        live.signs[0].change(numbers, [run, known], [live.status, live.curves], **READING)
        live.signs[1].change(newest, [run, known], live.newest, **READING)

        def choose(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.show(shelf, name, asked_for(asked))

        def reopen(name: str | None, before: Any) -> dict[str, Any]:
            """The maps as they were left, unless another run was chosen meanwhile."""
            kept = before if isinstance(before, dict) else {}
            same = kept.get("run") == name
            return credit_maps.show(shelf, name, kept if same else {"turn": kept.get("turn")})

        def film(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.film(shelf, name, asked_for(asked).get("prompt"))

        def save(asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.save(shelf, asked_for(asked))

        maps.choose(choose, run, maps, trigger_mode="always_last", **READING)
        maps.film(film, run, maps, **READING)
        maps.save(save, None, files, **READING)

        for name, tab in opened.items():
            tab.select(
                lambda name=name: (name, gr.Timer(active=name == "training")),
                None,
                [active, clock],
                **QUIET,
            )
        opened["training"].select(**beat)
        # what this visitor chose there before, and how many questions came before this one (see maps.js)
        kept = "{ ...window.t2i.kept, turn: ++window.t2i.turn }"
        opened["maps"].select(reopen, [run, asked], maps, js=f"(run) => [run, {kept}]", **READING)
        opened["playground"].select(play.open, None, play.models, **READING)
        opened["compare"].select(versus.refresh, versus.chosen, versus.outputs, **READING)
        opened["evaluation"].select(scores.refresh, run, scores.outputs, **READING)

        def changed(name: str | None, where: str, asked: Any) -> list[Any]:
            """Another run was chosen: the open tab shows it."""
            second = reopen(name, asked) if where == "maps" else gr.skip()
            third: list[Any] = [gr.skip()] * len(scores.outputs)
            if where == "evaluation":
                third = scores.refresh(name)
            return [*training.signs(shelf, name), second, *third]

        shown = [*live.signs, maps, *scores.outputs]
        js = f"(run, tab) => [run, tab, {kept}]"
        run.input(changed, [run, active, asked], shown, js=js, **READING)
    return page


def listed(shelf: RunShelf) -> list[list[str]]:
    """[label, name] of every run, in order."""
    return [list(choice) for choice in shelf.choices(shelf.statuses())]


def chosen_run(name: str | None, now: list[list[str]]) -> str | None:
    """The run of that name as long as it is there, else the first; None where there is none."""
    names = [value for _, value in now]
    return name if name in names else next(iter(names), None)


def offer(name: str | None, now: list[list[str]]) -> Any:
    """The update of the choice of runs. What is chosen is left to the page, which may know a later choice, unless it is gone."""
    choices = [(label, value) for label, value in now]
    chosen = chosen_run(name, now)
    return gr.Dropdown(choices=choices, **({} if chosen == name else {"value": chosen}))
