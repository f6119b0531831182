"""The page: header, choice of the run, five tabs, and what asks whom. Draws nothing itself."""

from __future__ import annotations

from functools import partial
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

# how many recorded steps the maps show; null while a film plays or somebody moves through them by keyboard
UNDISTURBED = """(document.querySelector('#credit-maps :is(.play[aria-label="pause"], :focus-visible)') ? null
    : Number(document.querySelector('#credit-maps .step-range')?.max ?? -1) + 1)"""


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
        grown = gr.State(None)  # the newest recorded step of the run under the credit maps
        signs = [known, *live.signs, grown, *versus.signs, *scores.signs]
        asks = [run, known, active, *versus.chosen, scores.which]

        def first() -> list[Any]:
            """What the page begins with: the newest run."""
            now = listed(shelf)
            return [offer(None, now), now, *training.signs(shelf, chosen_run(None, now))]

        def look(name: str | None, before: Any, where: str, *asked: Any) -> Any:
            """What a tick of the clock brings."""
            return seen_of(name, before, where, *asked) or gr.skip()

        def seen_of(name: str | None, before: Any, where: str, *asked: Any) -> dict[Any, Any]:
            """The runs there are, and signs of whether what the open tab shows has changed."""
            if before is None or (before and name is None):
                return {}  # asked before `first` came; answered later it would undo that
            now = listed(shelf)
            chosen = chosen_run(name, now)
            found: dict[Any, Any] = {known: now}
            if where == "training":
                found |= dict(zip(live.signs, training.signs(shelf, chosen), strict=True))
            elif where == "maps":
                found[grown] = training.signs(shelf, chosen)[1]
            elif where == "compare":
                found |= versus.look([one for _, one in now], *asked[:-1])
            elif where == "evaluation":
                found |= scores.look(chosen, asked[-1])
            return found

        def numbers(name: str | None, now: list[Any]) -> list[Any]:
            return training.numbers(shelf, chosen_run(name, now))

        def newest(name: str | None, now: list[Any]) -> dict[str, Any]:
            return training.newest(shelf, chosen_run(name, now))

        page.load(first, None, [run, known, *live.signs], **QUIET)
        clock.tick(look, asks, signs, **QUIET)
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

        def go_to(where: str, name: str | None, before: Any, _: str, *asked: Any) -> dict[Any, Any]:
            """What opening a tab brings: as a tick of the clock, which goes on there."""
            *chosen, seen, which = asked
            found = {active: where, **seen_of(name, before, where, *chosen, which)}
            if where == "compare" and seen is None:
                found |= versus.first([one for _, one in listed(shelf)], *chosen)
            return found

        for name, tab in opened.items():
            brought = [versus.runs] if name == "compare" else []
            tab.select(
                partial(go_to, name),
                [*asks[:-1], versus.signs[0], asks[-1]],
                [active, *signs, *brought],
                **QUIET,
            )
        # what this visitor chose there before, and how many questions came before this one (see maps.js)
        kept = "{ ...window.t2i.kept, turn: ++window.t2i.turn }"
        opened["maps"].select(reopen, [run, asked], maps, js=f"(run) => [run, {kept}]", **READING)

        def follow(name: str | None, before: Any) -> dict[str, Any]:
            """The maps of a run that has recorded another step: see `UNDISTURBED`."""
            there = before.get("shown") if isinstance(before, dict) else None
            if there is None or there == len(shelf.open(name).steps()):
                return gr.skip()
            return reopen(name, before)

        js = f"(run) => [run, {{ ...{kept}, shown: {UNDISTURBED} }}]"
        grown.change(follow, [run, asked], maps, js=js, **READING)
        opened["playground"].select(play.open, None, play.models, **READING)

        def changed(name: str | None, where: str, which: Any, asked: Any) -> dict[Any, Any]:
            """Another run was chosen: the open tab shows it."""
            found: dict[Any, Any] = dict(zip(live.signs, training.signs(shelf, name), strict=True))
            if where == "maps":
                found[maps] = reopen(name, asked)
            if where == "evaluation":
                found |= scores.look(name, which)
            return found

        shown = [*live.signs, maps, *scores.signs]
        js = f"(run, tab, which) => [run, tab, which, {kept}]"
        run.input(changed, [run, active, scores.which, asked], shown, js=js, **READING)
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
