"""The page: header, choice of the run, its tabs, and what asks whom. Draws nothing itself."""

from __future__ import annotations

import time
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from ..errors import one_line
from . import (
    compare,
    components,
    credit_maps,
    evaluation,
    method,
    one_token,
    playground,
    start_panel,
    training,
)
from .address import TABS
from .components import ALL, EACH, QUIET, READING, asked_for
from .runs import RunShelf
from .studio import Studio
from .trainings import Trainings

ADDRESS = "Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"  # see address.js
TO_TAB = "(...given) => (window.t2i?.address.choose({ tab: %r }), given)"
EVERY = 2.0  # seconds between two looks at the run


class Page(gr.Blocks):
    """A page that takes nothing for what a list does not offer, and says no more about another value that a component does
    not take than one line."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, *given: Any, **named: Any
    ) -> list[Any]:
        """See `gr.Blocks`. What was chosen may be gone from a list by now, or come from an address; only who writes requests
        by hand sees an error."""
        parts = [
            state[part._id] if state is not None and part._id in state else part
            for part in block_fn.inputs
        ]
        inputs = [components.offered(*one) for one in zip(parts, inputs, strict=False)]
        try:
            return await super().preprocess_data(block_fn, inputs, state, *given, **named)
        except Exception as error:
            raise gr.Error(escape(one_line(error)[:200]), print_exception=False) from None


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
            links = components.links()
            run = gr.Dropdown(
                label="Run", choices=[], elem_id="run", container=False, num_choices_shown=ALL
            )
        wanted = gr.State(None)  # the run that was just started, until it is listed
        known = gr.State(None)  # what was listed; None until the page has loaded
        active = gr.State("training")
        followed = gr.State(None)  # the newest step of the run whose maps are open
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
        of_run = [*live.signs, *([panel.sign] if panel else [])]
        signs = [known, *of_run, followed, *versus.signs, *scores.signs]
        asks = [run, known, active, *versus.chosen, scores.which]

        def signs_of(name: str | None) -> dict[Any, Any]:
            found = [*training.signs(shelf, name), *([panel.sign_of(name)] if panel else [])]
            return dict(zip(of_run, found, strict=True))

        def first(address: Any) -> dict[Any, Any]:
            """What the page begins with: the run that its address names, else the newest; forms as the address has them."""
            now = listed(shelf)
            wanted = address.get("run") if isinstance(address, dict) else None
            name = chosen_run(wanted, now)
            choices = [(label, value) for label, value in now]
            names = [value for _, value in now]
            if isinstance(wanted, str) and wanted not in names and names:
                gr.Warning(f"This address names the run {escape(wanted[:100])}, which is not here.")
            forms = {**play.restored(address), **versus.restored(address, names)}
            return {run: gr.Dropdown(choices=choices, value=name), **forms}

        def begin(name: str | None) -> dict[Any, Any]:
            """What is asked for once the run is chosen."""
            now = listed(shelf)
            return {known: now, **signs_of(chosen_run(name, now))}

        def ready() -> dict[str, Any]:
            """The tab that the address names may open."""
            return {"tabs": TABS, "sent": time.time()}

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
                found |= signs_of(chosen)
            elif where == "maps":
                found[followed] = credit_maps.sign(shelf, chosen)
            elif where == "compare":
                found |= versus.look([one for _, one in now], *asked[:-1])
            elif where == "evaluation":
                found |= scores.look(chosen, asked[-1])
            return found

        def offered(name: str | None, now: list[Any], begun: str | None) -> list[Any]:
            """The list anew; a run that was just started is chosen when it appears."""
            if begun in [value for _, value in now]:
                return [gr.Dropdown(choices=[(label, v) for label, v in now], value=begun), None]
            return [offer(name, now), begun]

        def numbers(name: str | None, now: list[Any]) -> list[Any]:
            return training.numbers(shelf, chosen_run(name, now), panel is not None)

        def newest(name: str | None, now: list[Any]) -> dict[str, Any]:
            return training.newest(shelf, chosen_run(name, now))

        def about(name: str | None, now: list[Any]) -> str:
            return method.about(shelf, chosen_run(name, now))

        linked = [play.inputs[1], *play.fields.values(), *versus.chosen]
        # one after the other: what a component triggers is asked with what the others show by then
        chosen = page.load(first, asked, [run, *linked], js=f"() => [{ADDRESS}]", **QUIET)
        chosen.then(begin, run, [known, *of_run], **QUIET).then(ready, None, links, **QUIET)
        clock.tick(look, asks, signs, **QUIET)
        known.change(offered, [run, known, wanted], [run, wanted], **QUIET)
        run.change(None, run, None, js="(run) => (window.t2i?.address.choose({ run }), [])")
        live.signs[0].change(numbers, [run, known], [live.status, live.curves], **READING)
        live.signs[1].change(newest, [run, known], live.newest, **READING)
        live.signs[2].change(about, [run, known], live.about, **READING)

        def choose(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.show(shelf, name, asked_for(asked))

        def reopen(name: str | None, before: Any) -> dict[str, Any]:
            """The maps as they were left, unless another run was chosen meanwhile."""
            kept = before if isinstance(before, dict) else {}
            same = kept.get("run", name) == name
            return credit_maps.show(shelf, name, kept if same else {"turn": kept.get("turn")})

        def film(name: str | None, asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.film(shelf, name, asked_for(asked).get("prompt"))

        def others(asked: gr.EventData) -> dict[str, Any]:
            return one_token.others(shelf, asked_for(asked))

        def through(asked: gr.EventData) -> dict[str, Any]:
            return one_token.through(shelf, asked_for(asked))

        def save(asked: gr.EventData) -> dict[str, Any]:
            return credit_maps.save(shelf, asked_for(asked))

        def grown(name: str | None) -> dict[str, Any]:
            return credit_maps.grown(shelf, name)

        followed.change(grown, run, maps, **READING)
        maps.choose(choose, run, maps, **EACH, **READING)
        maps.film(film, run, maps, **READING)
        maps.others(others, None, maps, **EACH, **READING)
        maps.through(through, None, maps, **EACH, **READING)
        maps.save(save, None, files, **READING)

        def go_to(where: str, name: str | None, before: Any, _: str, *asked: Any) -> dict[Any, Any]:
            """What opening a tab brings: as a tick of the clock, which goes on there."""
            *chosen, seen, which = asked
            found = {active: where, **seen_of(name, before, where, *chosen, which)}
            if where == "compare" and seen is None:
                found |= versus.first(name, [one for _, one in listed(shelf)], *chosen)
            return found

        for name, tab in opened.items():
            brought = [versus.runs] if name == "compare" else []
            tab.select(
                partial(go_to, name),
                [*asks[:-1], versus.signs[0], asks[-1]],
                [active, *signs, *brought],
                js=TO_TAB % name,
                **QUIET,
            )
        # what this visitor chose there before, and how many questions came before this one (see maps.js)
        kept = "{ ...window.t2i.kept, turn: ++window.t2i.turn }"
        opened["maps"].select(reopen, [run, asked], maps, js=f"(run) => [run, {kept}]", **READING)
        opened["playground"].select(play.open, play.inputs, play.outputs, **READING)

        def reload(name: str | None, where: str, picked: Any) -> list[Any]:
            if where != "playground":
                return [gr.skip() for _ in play.outputs]
            return play.open(name, picked)

        def changed(name: str | None, where: str, which: Any, asked: Any) -> dict[Any, Any]:
            """Another run was chosen: the open tab shows it."""
            found = signs_of(name)
            if where == "maps":
                found[maps] = reopen(name, asked)
            if where == "evaluation":
                found |= scores.look(name, which)
            return found

        def go(where: str, which: Any, asked: Any, event: gr.EventData) -> dict[Any, Any]:
            """An older address names another run."""
            name = chosen_run(asked_for(event).get("run"), listed(shelf))
            return {run: gr.Dropdown(value=name), **changed(name, where, which, asked)}

        run.input(reload, [run, active, play.inputs[1]], play.outputs, **READING)
        shown = [*of_run, maps, *scores.signs]
        js = f"(run, tab, which) => [run, tab, which, {kept}]"
        run.input(changed, [run, active, scores.which, asked], shown, js=js, **READING)
        js = f"(tab, which) => [tab, which, {kept}]"
        links.go(go, [active, scores.which, asked], [run, *shown], js=js, **READING)
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
