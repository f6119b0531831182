"""The panel of the Training tab that starts, stops and resumes a training; only there where the app was told to allow it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ..config.messages import COMMAND_LINE
from . import components, words
from .components import QUIET, READING
from .recipes import Plan, credit_names, free_name, own_values, planned, recipes, resumed
from .runs import RunShelf, or_in_words
from .trainings import Trainings

FIRST = "shapes/recommended"
ENDED = ("stopped", "failed", "killed")  # states that a run goes on from
LABELS = {
    "steps": "Steps",
    "per_step": "Prompts in a step",
    "group_size": "Images of each prompt",
    "lr": "Learning rate",
    "seed": "Seed",
}
NO_CREDIT = "the recipe's own"

Sign = tuple[Any, ...]
NOTHING: Sign = ("", "", "", None)


@dataclass(frozen=True)
class StartPanel:
    """What the page asks of the panel.

    Attributes:
        shelf: the runs.
        trainings: the process.
        sign: of what the panel shows: another one, and it is drawn anew.
    """

    shelf: RunShelf
    trainings: Trainings
    sign: gr.State

    def sign_of(self, chosen: object) -> Sign:
        """(what the button does, with which run, what the training does, its exit code), whatever changes what is shown."""
        mine = self.trainings
        if mine.running:
            return ("Stop", mine.run, "ending" if mine.stopping else "training", None)
        can = self._state(chosen) in ENDED
        return ("Resume" if can else "", str(chosen) if can else "", mine.run, mine.failed)

    @or_in_words(lambda why, self, chosen: "")
    def _state(self, chosen: object) -> str:
        return self.shelf.open(chosen).status(strict=False).state


def build(shelf: RunShelf, trainings: Trainings, run: gr.Dropdown, wanted: gr.State) -> StartPanel:
    """Lays out the panel and connects it.

    Args:
        shelf: the runs.
        trainings: the process.
        run: the choice at the top of the page.
        wanted: the run that is to be chosen once it appears there.
    """
    panel = StartPanel(shelf, trainings, gr.State(NOTHING))
    values = own_values(FIRST)
    with gr.Row(elem_id="start-now"):
        now = components.plain(elem_id="start-state")
        act = gr.Button("Stop", visible=False, elem_id="start-act", scale=0, min_width=160)
    with gr.Accordion("Start a training", open=False, elem_id="start") as form:
        with gr.Row():
            recipe = gr.Dropdown(
                [(f"{name}: {line}", name) for name, line in recipes().items()],
                value=FIRST,
                label="Recipe",
                scale=3,
                min_width=260,
                elem_id="start-recipe",
            )
            name = gr.Textbox(
                label="Name of the run",
                placeholder=free_name(trainings.root, FIRST),
                scale=1,
                min_width=180,
                elem_id="start-name",
            )
        with gr.Row():
            boxes = [
                gr.Textbox(
                    label=label, placeholder=values[short], min_width=110, elem_id=f"start-{short}"
                )
                for short, label in LABELS.items()
            ]
            credit = gr.Dropdown(
                [(NO_CREDIT, ""), *((one, one) for one in credit_names())],
                value="",
                label="Credit",
                min_width=170,
                elem_id="start-credit",
            )
        prompts = gr.Textbox(
            label="Prompts, one a line",
            info="left empty: the recipe's own; a verdict needs prompts of the embedded world",
            placeholder="a photo of a red circle and a blue square",
            lines=2,
            max_lines=8,
            elem_id="start-prompts",
        )
        said = components.plain(elem_id="start-said")
        with gr.Row():
            go = gr.Button("Start", variant="primary", elem_id="start-go", scale=0, min_width=220)
        command = gr.Textbox(
            label="The same in a terminal",
            buttons=["copy"],
            interactive=False,
            max_lines=4,
            elem_id="start-command",
        )
        with gr.Accordion("The whole configuration as YAML", open=False):
            yaml = gr.Textbox(
                buttons=["copy"],
                interactive=False,
                lines=6,
                max_lines=16,
                label="Every key of the run",
                elem_id="start-yaml",
            )
    fields = [recipe, name, prompts, credit, *boxes]
    told = [said, command, yaml, go]

    def plan_of(recipe: Any, name: Any, prompts: Any, credit: Any, *typed: Any) -> Plan:
        given = dict(zip((*LABELS, "credit"), (*typed, credit), strict=True))
        keys = {short: text or "" for short, text in given.items()}
        return planned(trainings.root, recipe, (name or "").strip(), prompts or "", keys)

    def ready(can: bool) -> Any:
        """The button is blue while pressing it would start a training."""
        return gr.Button(variant="primary" if can and not trainings.running else "secondary")

    @or_in_words(lambda why, *_: [refusal(why), "", "", ready(False)])
    def check(*filled: Any) -> list[Any]:
        """What would be started, or why it cannot."""
        plan = plan_of(*filled)
        return ["", plan.command, plan.yaml, ready(True)]

    @or_in_words(lambda why, *_: False)
    def startable(*filled: Any) -> bool:
        return bool(plan_of(*filled))

    @or_in_words(lambda why, *_: [gr.skip() for _ in (name, *boxes)])
    def own(recipe: str) -> list[Any]:
        """What stands in the empty fields: the recipe's own values."""
        values = own_values(recipe)
        free = free_name(trainings.root, recipe)
        known = [values.get(short) for short in LABELS]
        return [
            gr.Textbox(placeholder=free),
            *(gr.Textbox(placeholder=v or "", interactive=v is not None) for v in known),
        ]

    @or_in_words(lambda why, chosen, *_: [refusal(why), gr.skip(), panel.sign_of(chosen)])
    def start(chosen: Any, *filled: Any) -> list[Any]:
        plan = plan_of(*filled)
        trainings.start(plan)
        return [
            status(f"{plan.name} begins."),
            plan.name,
            panel.sign_of(chosen),
        ]

    @or_in_words(lambda why, chosen, sign: [refusal(why), panel.sign_of(chosen)])
    def press(chosen: Any, sign: Any) -> list[Any]:
        """What the button says: stops, or resumes the run that it names."""
        does, which = sign[:2]
        if does == "Stop":
            trainings.stop(which)
        elif does == "Resume":
            trainings.start(resumed(trainings.root, shelf.open(which)))
        return ["", panel.sign_of(chosen)]

    def draw(sign: Any, *filled: Any) -> list[Any]:
        does, which = sign[:2]
        label = f"{does} {which}" if does else act.value
        # what was said of the training before is over
        shown = gr.Button(label, visible=bool(does))
        return [state_line(trainings, sign), shown, "", ready(startable(*filled))]

    # one event, so that a later answer never gives way to an earlier one
    asked = [form.expand, *(field.change for field in fields)]
    gr.on(asked, check, fields, told, trigger_mode="always_last", **READING)
    recipe.input(own, recipe, [name, *boxes], **READING)
    go.click(start, [run, *fields], [said, wanted, panel.sign], **READING)
    act.click(press, [run, panel.sign], [now, panel.sign], **READING)
    panel.sign.change(draw, [panel.sign, *fields], [now, act, said, go], **QUIET)
    return panel


def state_line(trainings: Trainings, sign: Sign) -> str:
    """What the training that was started here does, or how it ended where it failed."""
    does, which, doing, code = sign
    if does == "Stop":
        told = "ends with a checkpoint" if doing == "ending" else "trains, started here"
        return status(f"{which} {told}.")
    if code is None:
        return ""
    lines = "\n".join(trainings.last_lines())
    title = f"{trainings.run} ended with an error (exit code {code})"
    return f'{words.notice(title, kind="error")}<pre class="console">{escape(lines)}</pre>'


def refusal(why: str) -> str:
    """One line about what cannot be started."""
    line = words.on_page(why.removeprefix(f"{COMMAND_LINE}: "))  # nobody types one here
    return f'<p class="said" role="alert">{escape(line)}</p>'


def status(text: str) -> str:
    return f'<p class="start-line" role="status">{escape(text)}</p>'
