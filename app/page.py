"""The page: header, choice of the run, its tabs, and what asks whom. Draws nothing itself."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import one_line
from . import compare, components, credit_maps, evaluation, playground, start_panel, training
from .components import QUIET, READING, asked_for
from .runs import RunShelf
from .studio import Studio
from .trainings import Trainings

EVERY = 2.0  # seconds between two looks at the run
TABS = {
    "training": "Training",
    "maps": "Credit maps",
    "playground": "Playground",
    "compare": "Compare",
    "evaluation": "Evaluation",
}


class Page(gr.Blocks):
    """A page that says no more about a value that a component does not take than one line."""

    async def preprocess_data(self, *given: Any, **named: Any) -> list[Any]:
        """See `gr.Blocks`; only who writes requests by hand sees the error."""
        try:
            return await super().preprocess_data(*given, **named)
        except Exception as error:
            raise gr.Error(one_line(error)[:200], print_exception=False) from None


def build_page(
    shelf: RunShelf, trainings: Trainings | None = None, studio: Studio | None = None
) -> gr.Blocks:
    """The whole page over one runs folder.

    Args:
        shelf: the runs.
        studio: what the playground samples with; None = a new one.
        trainings: starts trainings from the page; None = nobody may, and no event of it is there.
    """
    with Page(title="t2i-credit", analytics_enabled=False, fill_width=True) as page:
        with gr.Row(elem_id="top"):
            components.header()
            run = gr.Dropdown(
                label="Run", choices=[], elem_id="run", filterable=True, container=False
            )
        wanted = gr.State(None)  # the run that was just started, until it is listed
        known = gr.State(None)  # what was listed; None until the page has loaded
        active = gr.State("training")
        asked = gr.JSON(visible=False)
        clock = gr.Timer(EVERY)
        with gr.Tabs(elem_id="tabs"):
            opened = {}
            with gr.Tab(TABS["training"], id="training") as opened["training"]:
                panel = None
                if trainings is not None:
                    panel = start_panel.build(shelf, trainings, run, wanted)
                live = training.build()
            with gr.Tab(TABS["maps"], id="maps") as opened["maps"]:
                maps, files = credit_maps.build()
            with gr.Tab(TABS["playground"], id="playground") as opened["playground"]:
                play = playground.build(studio or Studio(shelf), run)
            with gr.Tab(TABS["compare"], id="compare") as opened["compare"]:
                versus = compare.build(shelf)
            with gr.Tab(TABS["evaluation"], id="evaluation") as opened["evaluation"]:
                scores = evaluation.build(shelf, run)

        # Gradio keeps one more component, with what it showed, for each update of it, and a skipped output is an update
        # too: so the clock brings states alone, and their changes bring what is to be shown, always whole.
        signs = [known, *live.signs, *([panel.sign] if panel else [])]

        def signs_of(name: str | None) -> list[Any]:
            found: list[Any] = training.signs(shelf, name)
            return [*found, panel.sign_of(name)] if panel else found

        def first() -> list[Any]:
            """What the page begins with: the newest run."""
            now = listed(shelf)
            return [offer(None, now), now, *signs_of(chosen_run(None, now))]

        def look(name: str | None, before: list[Any] | None) -> Any:
            """What a tick of the clock brings: the runs there are, and whether the chosen one has changed."""
            if before is None or (before and name is None):
                return gr.skip()  # asked before `first` came; answered later it would undo that
            now = listed(shelf)
            return [now, *signs_of(chosen_run(name, now))]

        def offered(name: str | None, now: list[Any], begun: str | None) -> list[Any]:
            """The list anew; a run that was just started is chosen when it appears."""
            if begun in [value for _, value in now]:
                return [gr.Dropdown(choices=[(label, v) for label, v in now], value=begun), None]
            return [offer(name, now), begun]

        def numbers(name: str | None, now: list[Any]) -> list[Any]:
            return training.numbers(shelf, chosen_run(name, now))

        def newest(name: str | None, now: list[Any]) -> dict[str, Any]:
            return training.newest(shelf, chosen_run(name, now))

        beat = {"fn": look, "inputs": [run, known], "outputs": signs, **QUIET}
        page.load(first, None, [run, *signs], **QUIET)
        clock.tick(**beat)
        known.change(offered, [run, known, wanted], [run, wanted], **QUIET)
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
        opened["playground"].select(play.open, play.inputs, play.outputs, **READING)
        opened["compare"].select(versus.refresh, versus.chosen, versus.outputs, **READING)
        opened["evaluation"].select(scores.refresh, run, scores.outputs, **READING)

        def followed(name: str | None, where: str, picked: Any) -> list[Any]:
            if where != "playground":
                return [gr.skip() for _ in play.outputs]
            return play.open(name, picked)

        def changed(name: str | None, where: str, asked: Any) -> list[Any]:
            """Another run was chosen: the open tab shows it."""
            second = reopen(name, asked) if where == "maps" else gr.skip()
            third: list[Any] = [gr.skip()] * len(scores.outputs)
            if where == "evaluation":
                third = scores.refresh(name)
            return [*signs_of(name), second, *third]

        play_asked = [run, active, play.inputs[1]]
        run.input(followed, play_asked, play.outputs, **READING)
        shown = [*signs[1:], maps, *scores.outputs]
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
