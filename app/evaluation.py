"""The evaluation tab: scores of every task with their intervals, what changed, and the images with the judge's reasons."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from shlex import quote
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ..api.models import base_name, run_of
from ..errors import RunError, UserError
from ..heatmap.text import printable
from ..measure.intervals import verdict
from ..models import world_of
from ..run_folder.reader import RunReader
from . import components, rewarded, words
from .compared import evaluation_times
from .figures import task_bars
from .gallery import page_of
from .payload import plain
from .reports import report_path
from .runs import RunShelf, or_in_words
from .texts import is_text


@dataclass(frozen=True)
class EvaluationTab:
    """The tab: the choice of an evaluation, and signs of what is shown (see training.py)."""

    shelf: RunShelf
    which: gr.Dropdown
    signs: list[gr.State]

    def look(self, run: str | None, name: object) -> dict[Any, Any]:
        """Signs of the list of evaluations and of the one that is shown."""
        return dict(zip(self.signs, signs(self.shelf, run, name), strict=True))


def build(shelf: RunShelf, run: gr.Dropdown) -> EvaluationTab:
    """Lays out the tab and connects it."""
    which = gr.Dropdown(
        [], label="Evaluation", elem_id="evaluation-name", num_choices_shown=components.ALL
    )
    said = components.plain(elem_id="evaluation-said")
    bars = components.charts("evaluation-bars")
    table = components.plain(elem_id="evaluation-table")
    images = components.gallery("evaluation-gallery")
    tab = EvaluationTab(shelf, which, [gr.State(None), gr.State(None)])

    def pick(name: str | None, evaluation: str | None, asked: gr.EventData) -> dict[str, Any]:
        return page_of(shelf, name, evaluation, components.asked_for(asked))

    listed, shown = tab.signs
    which.input(lambda *asked: signs(shelf, *asked), [run, which], tab.signs, **components.QUIET)
    listed.change(lambda *asked: choice(shelf, *asked), [run, which], which, **components.QUIET)
    shown.change(
        lambda *asked: update(shelf, *asked),
        [run, which],
        [bars, table, images, said],
        **components.READING,
    )
    images.pick(pick, [run, which], images, **components.EACH, **components.READING)
    return tab


@or_in_words(lambda why, shelf, run, name: [(run, why), (run, why)])
def signs(shelf: RunShelf, run: object, name: object) -> list[tuple[Any, ...]]:
    """What the list of evaluations, and what is shown of one, is made of: equal as long as nothing has changed."""
    reader = shelf.open(run)
    written = evaluation_times(reader)
    one = shown_name(list(written), name)
    return [(run, tuple(written)), (run, one, written.get(one or ""))]


def shown_name(known: Sequence[str], name: object) -> str | None:
    """The evaluation of that name, else the last; None where there is none."""
    return str(name) if name in known else next(iter(known[-1:]), None)


@or_in_words(lambda why, *_: gr.Dropdown(choices=[], value=None))
def choice(shelf: RunShelf, run: str | None, name: object) -> Any:
    """The evaluations to choose from."""
    known = shelf.open(run).evaluations()
    return gr.Dropdown(choices=known, value=shown_name(known, name))


def _nothing() -> dict[str, Any]:
    return {"cards": [], "sent": time.time()}


def _no_scores(why: str, *_: object) -> list[Any]:
    note = components.note("This evaluation cannot be shown", why)
    return [note, "", _nothing(), ""]


@or_in_words(_no_scores)
def update(shelf: RunShelf, run: str | None, asked: object = None) -> list[Any]:
    """The bars, the table, the gallery and the warnings of an evaluation of a run."""
    if not run:
        raise UserError("no run is chosen")
    reader = shelf.open(run)
    name = shown_name(reader.evaluations(), asked)
    samples, model = ("answers", "arithmetic") if is_text(reader) else ("images", "shapes")
    if name is None:
        base = model if is_text(reader) else base_name(reader.config()) or model
        foreign = not is_text(reader) and world_of(base) is None and run_of(base) is None
        more = " --prompts FILE" if foreign else ""  # the embedded world's prompts are not its own
        note = components.note(
            "Not evaluated yet",
            f"{before_it(shelf, reader)}This run has no evaluation: per-task scores with intervals appear here after",
            f"t2i-credit evaluate {quote(str(reader.path))} --against {quote(base)}{more}",
        )
        return [note, "", _nothing(), ""]
    try:
        result = reader.evaluation(name)
        if rewarded.is_rewarded(result):
            told, records = _told(result), reader.evaluation_images(name)
            bars = rewarded.curves(result["summary"], records, told) | {"sent": time.time()}
            table = rewarded.table(result["summary"], result.get("paired"))
        else:
            bars, table = scores(result, samples)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise RunError(f"{reader.path}: evaluation {name}: damaged scores") from error
    page = page_of(shelf, run, name, {})
    return [bars, table + report_link(reader, name), page, warnings(result)]


def before_it(shelf: RunShelf, reader: RunReader) -> str:
    """Where the evaluations of the model that a demo began with are (cli/demo.py); "" where there are none."""
    name = f"{reader.path.name}-base"
    with suppress(UserError, OSError):
        if known := shelf.open(name).evaluations():
            return f"Evaluations of the model that it began with: {', '.join(known)}, of the run {name}. "
    return ""


def warnings(result: Mapping[str, Any]) -> str:
    """What a reader of the scores should know first, as the command line and the report say it."""
    told = result.get("warnings")
    lines = [line for line in told if isinstance(line, str)] if isinstance(told, list) else []
    return "".join(words.notice("Read this first", printable(line), kind="error") for line in lines)


def scores(result: Mapping[str, Any], samples: str = "images") -> tuple[dict[str, Any], str]:
    """The bars and the table of one evaluation, of images or of answers."""
    summary, paired = result["summary"], result.get("paired")
    shown = {"after" if paired else "correct": summary}
    if paired:
        names = {"correct": "before", "low": "before_low", "high": "before_high"}
        before = {
            task: {key: row.get(name) for key, name in names.items()}
            for task, row in paired.items()
        }
        shown = {"before": before, "after": summary}
    told = _told(result)
    figure = task_bars(
        shown, f"share of correct {samples}, with 95% intervals over prompts · {told}"
    )
    figure["title"] = f"Correct {samples} by task"
    return plain({"figures": [figure], "sent": time.time()}), score_table(summary, paired, samples)


def _told(result: Mapping[str, Any]) -> str:
    """How the samples were made, in a few words."""
    protocol = result.get("protocol", {})
    return ", ".join(
        f"{label} {protocol[key]}"
        for key, label in (
            ("images_per_prompt", "images per prompt"),
            ("cfg_scale", "guidance"),
            ("temperature", "temperature"),
            ("seed", "seed"),
        )
        if protocol.get(key) is not None
    )


def score_table(
    summary: Mapping[str, Mapping[str, Any]],
    paired: Mapping[str, Mapping[str, Any]] | None,
    samples: str = "images",
) -> str:
    """Every task in figures; of answers a task is a number of steps."""
    change_head = (
        ["change [95%]"] if paired else []
    )  # beside what changed: a phone has no room for all
    explained = [words.term(name) for name in ("pass@k", "partial")]
    heads = ["task", "correct [95%]", *change_head, *explained, samples]
    rows = []
    for task, row in summary.items():
        cells = [
            escape(task.replace("_", " ")),
            f"<b>{_part(row.get('correct'))}</b> <small>[{_part(row.get('low'))}, {_part(row.get('high'))}]</small>",
            _part(row.get("pass_at_k")),
            _part(row.get("partial")),
            escape(str(row.get(samples, ""))),
        ]
        if paired:
            change = paired[task]
            sure = {1: "up", -1: "down", 0: ""}[verdict(change["low"], change["high"])]
            ends = [
                words.signed(end) if end is not None else "–"
                for end in (change["low"], change["high"])
            ]
            cells.insert(
                2,
                f'<b class="{sure}">{words.signed(change["change"])}</b> <small>[{", ".join(ends)}]</small>',
            )
        kind = ' class="total"' if task == "overall" else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f'<div class="table scores"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def report_link(reader: RunReader, name: str) -> str:
    """A link to the page that `t2i-credit evaluate` wrote, where it is there."""
    if not report_path(reader, name).is_file():
        return ""
    asked = escape(urlencode({"run": reader.path.name, "evaluation": name}))
    says = "every image, the settings and who judged, in one page"
    return (
        f'<p class="report"><a href="t2i/report?{asked}" target="_blank" rel="noopener">Open the report</a> '
        f"<span>{says}</span></p>"
    )


def _part(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"
