"""One recorded step of a run on text as a self-contained HTML page: every token a pill in the colour of its value.

Draws from the run folder alone; whatever stands in a prompt or an answer is escaped. Changes nothing that the run wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunError
from ..run_folder.atomic import make_folder, write_atomic
from ..run_folder.reader import RunReader
from .colours import ADVANTAGE, CONTRAST, LIGHT, diverging, robust_limit, table


class View(NamedTuple):
    """One way to colour the tokens: a diverging palette around `middle`."""

    name: str
    title: str
    low: str
    high: str
    middle: float
    palette: str


VIEWS = (
    View("credit", "credit", "less than its share", "more than its share", 1.0, "BrBG"),
    View("advantage", "advantage x credit", "made rarer", "made likelier", 0.0, ADVANTAGE),
    View("signed", "signed contrast", "fits the negative", "fits the prompt", 0.0, CONTRAST),
)
# what the hover shows: list in samples.json, its name on the page
_SHOWN = {
    "logprobs": "log p under the prompt",
    "negative_logprobs": "log p under the negative",
    "contrast": "contrast",
    "credit": "credit",
    "token_advantages": "advantage x credit",
    "entropy": "entropy, nats",
}


def write_text_heatmap(
    run: Path | str, step: int | None = None, out: Path | str | None = None
) -> Path:
    """Writes the page of a step and returns its path.

    Args:
        run: the run folder of a run on text.
        step: which step; None = the latest.
        out: the folder to write to; None = heatmaps/<step> in the run folder.

    Raises:
        RunError: the step is not recorded, or damaged, or the disk refuses.
    """
    reader = RunReader(run)
    known = reader.steps()
    if step is None and known:
        step = known[-1]
    if step is None or step not in known:
        listed = ", ".join(map(str, known)) or "none yet"
        raise RunError(f"{reader.path}: step {step or ''} is not recorded; recorded: {listed}")
    samples = reader.samples(step)
    try:
        content = page(reader.path.name, step, samples)
    except (KeyError, TypeError, ValueError) as error:
        folder = reader.step_folder(step)
        raise RunError(f"{folder}: not a recorded step of text: {error!r}") from error
    folder = reader.heatmaps(step) if out is None else Path(out)
    make_folder(folder)
    write_atomic(folder / "tokens.html", content.encode())
    return folder / "tokens.html"


def page(name: str, step: int, samples: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of one step; colours have one scale over all its answers."""
    from jinja2 import Environment, StrictUndefined

    every = {view: [_values(view, sample) for sample in samples] for view in VIEWS}
    shown = {view: values for view, values in every.items() if all(v is not None for v in values)}
    limits = {
        view: robust_limit(np.concatenate(values) - view.middle) for view, values in shown.items()
    }
    cards = [
        _card(sample, {view: values[place] for view, values in shown.items()}, limits)
        for place, sample in enumerate(samples)
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (files(__package__) / "text.html").read_text(encoding="utf-8")
    groups = [list(group) for _, group in groupby(cards, key=lambda card: card["group"])]
    scales = [
        {"view": view, "limit": f"{limit:.2f}", "steps": _scale(view)}
        for view, limit in limits.items()
    ]
    return environment.from_string(source).render(
        name=name, step=step, groups=groups, scales=scales
    )


def _values(view: View, sample: Mapping[str, Any]) -> Any:
    """(T) float, or None where the step does not hold what the view shows."""
    if view.name == "signed":
        if "negative_logprobs" not in sample:
            return None
        return _numbers(sample["logprobs"]) - _numbers(sample["negative_logprobs"])
    return _numbers(sample["credit" if view.name == "credit" else "token_advantages"])


def _numbers(values: Iterable[float | None]) -> Any:
    """What is not finite was written as null, and is shown as 0."""
    return np.array([0.0 if value is None else value for value in values], dtype=np.float64)


def _card(
    sample: Mapping[str, Any], coloured: Mapping[View, Any], limits: Mapping[View, float]
) -> dict[str, Any]:
    """What the page shows of one answer."""
    styles = [
        [
            f"--{view.name}:{_hex(colour)};--{view.name}-ink:{_ink(colour)}"
            for colour in diverging(values - view.middle, limits[view], view.palette)
        ]
        for view, values in coloured.items()
    ]
    lists = {title: sample[key] for key, title in _SHOWN.items() if key in sample}
    pills = [
        {
            "text": visible(token),
            "style": ";".join(style),
            "breaks": "\n" in token,
            "tip": "\n".join(
                [repr(token), *(f"{title}: {_short(v[place])}" for title, v in lists.items())]
            ),
        }
        for place, (token, *style) in enumerate(zip(sample["tokens"], *styles, strict=True))
    ]
    return {
        "group": sample["group"],
        "prompt": spoken(sample["prompt"]),
        "negative": None if sample["negative"] is None else spoken(sample["negative"]),
        "reward": _short(sample["reward"]),
        "advantage": _short(sample["advantage"]),
        "gold": sample["gold"],
        "pills": pills,
    }


def spoken(prompt: Any) -> str:
    """A prompt, a text or messages, as text."""
    if isinstance(prompt, str):
        return printable(prompt)
    return printable("\n".join(f"{message['role']}: {message['content']}" for message in prompt))


def visible(token: str) -> str:
    """Spaces and line ends can be seen; an empty token too."""
    shown = token.replace(" ", "\u00b7").replace("\n", "\u21b5").replace("\t", "\u21e5")
    return printable(shown) or "\u2205"


def printable(text: str) -> str:
    """Line ends stay; all else that is no visible character (control characters, marks that turn the direction of
    writing, halves of a character) stands there as its escape."""
    return "".join(
        char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text
    )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _scale(view: View) -> list[str]:
    return [_hex(colour) for colour in table(view.palette)[::32]]


def _hex(colour: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*map(int, colour))


def _ink(colour: Any) -> str:
    """Black or white, whichever can be read on the colour (weights of ITU-R BT.601)."""
    red, green, blue = map(int, colour)
    return "#111" if 0.299 * red + 0.587 * green + 0.114 * blue > LIGHT else "#fff"
