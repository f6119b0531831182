"""The playground tab: a prompt and its negative, images, and where the two disagree, before any training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ..api.models import CFG_SCALE
from ..errors import RunError, UserError
from . import components, links, words
from .checkpoints import EMBEDDED, embedded_choices, guidance, newest
from .credit_maps import slug
from .downloads import chosen_palettes, csv_file, png_file
from .fresh import USUAL, FreshStep
from .recipes import credits
from .runs import in_words, or_in_words
from .studio import CANCELLED, MOST_SAMPLES, Progress, Settings, Studio, Take

MOST_GUIDANCE = 10.0
REFUSED = Progress(
    0.0, "a number of the form is out of its range; nothing was sampled", over=True, failed=True
)
MODES = ("one pair of prompts", "two negative prompts", "two models")


@dataclass(frozen=True)
class Playground:
    """What the page refreshes when the tab opens.

    Attributes:
        inputs, outputs: of `open`.
        fields: {name in the page's address: component} of the form.
        studio: loads and samples.
    """

    inputs: list[Any]
    outputs: list[Any]
    fields: dict[str, Any]
    studio: Studio

    def restored(self, address: Any) -> dict[Any, Any]:
        """The form as an address has it."""
        models = [name for _, name in self.studio.choices()]
        offered = {"generator": models, "generator2": models}
        found = links.restored(self.fields, address, offered)
        seed = self.fields["seed"]
        if seed in found and not str(address["seed"]).isdecimal():
            del found[seed]
        picked = found.pop(self.fields["generator"], None)  # it is chosen when the tab opens
        return found if picked is None else {**found, self.inputs[1]: address["generator"]}

    @or_in_words(lambda why, self, *_: [gr.skip() for _ in self.outputs])
    def open(self, run: object, picked: str | None) -> list[Any]:
        """The models to choose from, when the tab is opened: at first the newest checkpoint of the chosen run, unless
        another was picked by hand. It is loaded meanwhile.

        Args:
            run: the chosen run.
            picked: by hand; None = nothing yet.
        """
        known = self.studio.choices()
        names = [name for _, name in known]
        chosen = picked if picked in names else newest(self.studio.shelf, run)
        self.studio.warm_up(chosen)
        scale = min(guidance(self.studio.shelf, chosen), MOST_GUIDANCE)
        first = gr.Dropdown(choices=known, value=chosen)
        return [first, gr.Dropdown(choices=known), gr.skip() if picked else scale]


def build(studio: Studio, run: gr.Dropdown) -> Playground:
    """Lays out the tab and connects it.

    Args:
        studio: loads and samples.
        run: the choice at the top of the page.
    """
    shelf = studio.shelf
    stops: dict[str, threading.Event] = {}  # of each session that waits or samples
    known = embedded_choices()
    with gr.Row(elem_id="playground", equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_id="play-form"):
            model = gr.Dropdown(
                known,
                value=EMBEDDED,
                label="Generator",
                info="of images: the embedded one and checkpoints; a run on text draws none",
                elem_id="play-model",
            )
            prompt = gr.Textbox(
                "a photo of a red circle and a blue square",
                label="Prompt",
                lines=2,
                elem_id="play-prompt",
            )
            negative = gr.Textbox(
                label="Negative prompt",
                info="left empty: the model's own null prompt",
                placeholder="a photo of a blue circle and a red square",
                elem_id="play-negative",
            )
            mode = gr.Radio(
                list(MODES), value=MODES[0], label="Compare, on the same seeds", elem_id="play-mode"
            )
            other_negative = gr.Textbox(
                label="Second negative prompt", visible=False, elem_id="play-negative-2"
            )
            other_model = gr.Dropdown(
                known,
                value=EMBEDDED,
                label="Second generator",
                visible=False,
                elem_id="play-model-2",
            )
            with gr.Row():
                cfg = gr.Slider(
                    1, MOST_GUIDANCE, value=CFG_SCALE, step=0.1, label="Guidance", min_width=140
                )
                temperature = gr.Slider(
                    0.1, 2, value=1, step=0.05, label="Temperature", min_width=140
                )
            with gr.Row():
                count = gr.Slider(1, MOST_SAMPLES, value=4, step=1, label="Images", min_width=140)
                seed = gr.Number(
                    0, label="Seed", min_width=140
                )  # `whole_seed` says what is allowed
            credit = gr.Dropdown(
                [(credit_label(name), name) for name in credits()],
                value=USUAL,
                label="Credit",
                info="what training with it would push in these images",
                elem_id="play-credit",
            )
            with gr.Row():
                go = gr.Button("Sample", variant="primary", elem_id="play-go")
                cancel = gr.Button("Cancel", elem_id="play-cancel")
        with gr.Column(scale=8, min_width=320, elem_id="play-result"):
            said = components.plain(
                words.notice(
                    "Nothing sampled yet",
                    "Write a prompt and press Sample. Each image appears beside its map: where the chosen credit "
                    "would push, how much each token counts, or which of both prompts it fits better.",
                ),
                elem_id="play-said",
            )
            pictures = components.group("play-pictures")
            files = components.downloads("play-files")
            shown = gr.State({"groups": [], "key": "nothing yet"})  # what `pictures` shows
            made = gr.State(())  # what can be downloaded of it
            picked = gr.State(None)  # the model that was chosen by hand

    def wait(request: gr.Request) -> str:
        """What is said at once: whoever comes second waits for the generator, and may cancel meanwhile."""
        session = request.session_hash or "page"
        if session not in stops or stops[session].is_set():
            stops[session] = threading.Event()
        return told(Progress(0.0, "waiting for the generator: it draws for one visitor at a time"))

    def stop_now(request: gr.Request) -> Any:
        event = stops.get(request.session_hash or "page")
        if not event:
            return gr.skip()
        event.set()
        return told(CANCELLED)

    def second(chosen: str) -> list[Any]:
        return [gr.Textbox(visible=chosen == MODES[1]), gr.Dropdown(visible=chosen == MODES[2])]

    def sample(request: gr.Request, value: dict[str, Any], *filled: Any) -> Iterator[list[Any]]:
        session = request.session_hash or "page"
        stop = stops.setdefault(session, threading.Event())
        try:
            takes, settings = asked(*filled)
            for progress in studio.sample(takes, settings, stop):
                value = value if progress.value is None else progress.value
                # what is equal is not sent again
                yield [told(progress), value, value, progress.steps]
        except UserError as error:
            failed = Progress(0.0, in_words(error), over=True, failed=True)
            yield [told(failed), value, value, ()]
        finally:
            stops.pop(session, None)

    def saved(steps: Any, asked: gr.EventData) -> dict[str, Any]:
        return save(steps, components.asked_for(asked))

    form = [model, prompt, negative, mode, other_negative, other_model]
    form += [cfg, temperature, seed, count, credit]  # in the order of `asked`
    waited = go.click(wait, None, said, concurrency_limit=4, **components.QUIET)
    sampled = waited.then(
        sample,
        [shown, *form],
        [said, pictures, shown, made],
        concurrency_id="generator",
        concurrency_limit=1,
        **components.QUIET,
    )
    # Gradio itself refuses a number that is out of range, and says which
    sampled.failure(lambda: told(REFUSED), None, said, **components.QUIET)
    cancel.click(stop_now, None, said, concurrency_limit=4, **components.QUIET)
    model.input(
        lambda name: [min(guidance(shelf, name or EMBEDDED), MOST_GUIDANCE), name],
        model,
        [cfg, picked],
        **components.QUIET,
    )
    mode.change(second, mode, [other_negative, other_model], **components.QUIET)
    pictures.save(saved, made, files, **components.READING)
    fields = {
        "generator": model,
        "asked": prompt,
        "negative": negative,
        "mode": mode,
        "negative2": other_negative,
        "generator2": other_model,
        "guidance": cfg,
        "temperature": temperature,
        "images": count,
        "seed": seed,
        "push": credit,
    }
    links.keep(fields, always=("generator",))
    return Playground([run, picked], [model, other_model, cfg], fields, studio)


@or_in_words(lambda why, *_: {"error": why, "sent": time.time()})
def save(steps: Sequence[FreshStep], asked: dict[str, Any]) -> dict[str, Any]:
    """A download of what was sampled last, as a table all of its groups: {name, mime, data}, or {error}."""
    number = asked.get("group")
    if not isinstance(number, int) or not 0 <= number < len(steps):
        raise RunError("these images are gone; sample again")
    step, kind = steps[number], asked.get("kind")
    groups = [(one, range(one.group_size)) for one in steps]
    if kind == "png":
        palettes = chosen_palettes(asked.get("palettes"))
        made = png_file(groups, number, asked.get("place"), palettes)
    elif kind == "csv":
        made = csv_file(groups, [one.title for one in steps])
    else:
        raise RunError(f"{kind!r} cannot be downloaded; png and csv can")
    ending, mime, data = made
    parts = ["playground", slug(step.samples[0]["prompt"]), f"seed{step.seed}"]
    if kind == "png":
        parts += [f"group{number}"] if len(steps) > 1 else []
        parts.append(f"sample{asked['place']}")
    name = "-".join(parts)
    return {"name": f"{name}.{ending}", "mime": mime, "data": data, "sent": time.time()}


def credit_label(name: str) -> str:
    """A credit as it stands in a recipe."""
    section = credits()[name]
    params = "".join(f", {key} {value}" for key, value in section.items() if key != "name")
    return f"{name} ({section['name']}{params})"


def asked(
    model: str,
    prompt: str,
    negative: str,
    mode: str,
    other_negative: str,
    other_model: str,
    cfg: float,
    temperature: float,
    seed: float | None,
    count: float,
    credit: str = USUAL,
) -> tuple[list[Take], Settings]:
    """What the form says, as takes and settings.

    Raises:
        UserError: a number is missing or is none.
    """
    try:
        numbers = float(cfg), float(temperature)
        many = int(count)
    except (TypeError, ValueError, OverflowError):
        raise UserError("guidance, temperature and images: must be numbers") from None
    settings = Settings(*numbers, whole_seed(seed), many, credit)
    first = negative if negative else None
    takes = [Take(model, prompt, first, f"“{prompt}”")]
    if mode == MODES[1]:
        other = other_negative if other_negative else None
        takes = [
            Take(
                model,
                prompt,
                text,
                "against the null prompt" if text is None else f"against “{text}”",
            )
            for text in (first, other)
        ]
    elif mode == MODES[2]:
        takes = [Take(name, prompt, first, name) for name in (model, other_model)]
    return takes, settings


def whole_seed(seed: object) -> int:
    """The seed, not rounded.

    Raises:
        UserError: it is none.
    """
    if isinstance(seed, int | float) and seed >= 0 and float(seed).is_integer():
        return int(seed)
    said = "the field is empty" if seed is None else f"{seed!r:.40} is not allowed"
    raise UserError(f"seed: {said}; an integer from 0 on is")


def told(progress: Progress) -> str:
    """The line above the pictures, with a bar while it works."""
    if progress.failed:
        return words.notice("This cannot be sampled", progress.says, kind="error")
    bar = (
        ""
        if progress.over
        else f'<div class="progress"><i style="width:{100 * progress.share:.1f}%"></i></div>'
    )
    stamp = f' data-done="{time.time():.0f}"' if progress.over else ""
    return f'<div class="play-said"{stamp}>{escape(progress.says)}{bar}</div>'
