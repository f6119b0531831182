"""The evaluation tab: scores of every task with their intervals, what changed, and the images with the judge's reasons."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from shlex import quote
from typing import Any

import gradio as gr

from ..errors import RunError, UserError
from ..heatmap.text import printable
from ..measure.intervals import verdict
from ..run_folder.reader import RunReader
from . import components, rewarded, words
from .figures import task_bars
from .payload import picture_url, plain
from .runs import RunShelf, or_in_words
from .texts import is_text

PER_PAGE = 48
VERDICTS = ("all", "right", "wrong")


@dataclass(frozen=True)
class EvaluationTab:
    """The tab, and how it follows the choice of a run."""

    shelf: RunShelf
    outputs: list[Any]

    def refresh(self, run: str | None) -> list[Any]:
        """Values of `outputs` for the first evaluation of a run."""
        return update(self.shelf, run, None)


def build(shelf: RunShelf, run: gr.Dropdown) -> EvaluationTab:
    """Lays out the tab and connects it."""
    which = gr.Dropdown([], label="Evaluation", elem_id="evaluation-name")
    bars = components.charts("evaluation-bars")
    table = components.plain(elem_id="evaluation-table")
    images = components.gallery("evaluation-gallery")
    tab = EvaluationTab(shelf, [which, bars, table, images])

    def pick(name: str | None, evaluation: str | None, asked: gr.EventData) -> dict[str, Any]:
        return page_of(shelf, name, evaluation, components.asked_for(asked))

    which.input(
        lambda name, one: update(shelf, name, one), [run, which], tab.outputs, **components.READING
    )
    images.pick(pick, [run, which], images, trigger_mode="always_last", **components.READING)
    return tab


def _nothing() -> dict[str, Any]:
    return {"items": [], "sent": time.time()}


def _no_scores(why: str, *_: object) -> list[Any]:
    note = components.note("This evaluation cannot be shown", why)
    return [gr.Dropdown(value=None), note, "", _nothing()]


@or_in_words(_no_scores)
def update(shelf: RunShelf, run: str | None, name: str | None) -> list[Any]:
    """Values of `EvaluationTab.outputs`."""
    if not run:
        raise UserError("no run is chosen")
    reader = shelf.open(run)
    known = reader.evaluations()
    samples, model = ("answers", "arithmetic") if is_text(reader) else ("images", "shapes")
    if not known:
        note = components.note(
            "Not evaluated yet",
            "This run has no evaluation: per-task scores with intervals appear here after",
            f"t2i-credit evaluate {quote(str(reader.path))} --against {model}",
        )
        return [gr.Dropdown(choices=[], value=None), note, "", _nothing()]
    name = name if name in known else known[-1]
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
    choice = gr.Dropdown(choices=known, value=name)
    return [choice, bars, table, page_of(shelf, run, name, {})]


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
    heads = ["task", "correct [95%]", "pass@k", "partial", samples]
    heads += ["change [95%]"] if paired else []
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
            cells.append(
                f'<b class="{sure}">{words.signed(change["change"])}</b> <small>[{", ".join(ends)}]</small>'
            )
        kind = ' class="total"' if task == "overall" else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


@or_in_words(lambda why, *_: components.note("The images of this evaluation cannot be shown", why))
def page_of(
    shelf: RunShelf, run: str | None, name: str | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """One page of the gallery.

    Args:
        asked: "task", "verdict" (all, right, wrong) and "page" (from 0); others are ignored.
    """
    reader = shelf.open(run)
    if is_text(reader):
        says = f"The answers and their verdicts are in evaluations/{name}.jsonl of the run."
        return components.note("No image to show", says)
    records = reader.evaluation_images(str(name))
    for number, record in enumerate(records, start=1):
        try:
            _ = (record["filename"], record["tag"], record["prompt"], _verdict(record))
            boxes(record)
        except (
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            ValueError,
            RecursionError,
        ) as error:
            where = f"{reader.path}: evaluations/{name}.jsonl, line {number}"
            raise RunError(f"{where}: a damaged record") from error
    return gallery_page(reader, str(name), records, asked)


def gallery_page(
    reader: RunReader, name: str, records: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """What the gallery shows: the images of a task and a verdict, page by page."""
    if not records:
        return components.note("No record per image", "This evaluation kept its scores alone.")
    tasks = list(dict.fromkeys(_task(record) for record in records))
    task = asked.get("task") if asked.get("task") in tasks else "all"
    judged = any("correct" in record for record in records)
    verdict = asked.get("verdict") if asked.get("verdict") in VERDICTS and judged else "all"
    found = [
        record
        for record in records
        if task in ("all", _task(record)) and verdict in ("all", _verdict(record))
    ]
    pages = max(1, -(-len(found) // PER_PAGE))
    number = asked.get("page")
    page = min(max(0, number), pages - 1) if isinstance(number, int) else 0
    side = canvas_side(records)
    shown = found[page * PER_PAGE : (page + 1) * PER_PAGE]
    return plain(
        {
            "tasks": tasks,
            "task": task,
            "verdict": verdict,
            "verdicts": list(VERDICTS) if judged else [],
            "page": page,
            "pages": pages,
            "total": len(found),
            "items": [gallery_item(reader, name, record, side) for record in shown],
            "sent": time.time(),
        }
    )


def gallery_item(
    reader: RunReader, name: str, record: Mapping[str, Any], side: float
) -> dict[str, Any]:
    """One image: its picture if it was kept, every detection, the verdict and its reason."""
    picture = reader.evaluation_image(name, str(record["filename"]))
    size = picture.size if picture else (side, side)
    return {
        "image": picture_url(picture, 256) if picture else None,
        "size": list(size),
        "prompt": printable(str(record["prompt"])),
        "task": _task(record),
        "verdict": _verdict(record),
        "reason": printable(str(record.get("reason") or "")),
        "score": record.get("score"),
        "boxes": boxes(record),
    }


def boxes(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every detection of an image, four sides and a confidence: {name, box, confidence}."""
    details = record.get("details") or {}
    details = json.loads(details) if isinstance(details, str) else details
    return [
        {
            "name": printable(str(kind)),
            "box": [float(side) for side in one[:4]],
            "confidence": float(one[4]),
        }
        for kind, found in details.items()
        for one in found
    ]


def canvas_side(records: Sequence[Mapping[str, Any]]) -> float:
    """The side of the square that all boxes fit in, a multiple of 16: for images whose pixels were not kept."""
    most = max((max(one["box"]) for record in records for one in boxes(record)), default=16.0)
    return float(16 * -(-most // 16))


def _task(record: Mapping[str, Any]) -> str:
    return printable(str(record["tag"]))


def _verdict(record: Mapping[str, Any]) -> str:
    """Right or wrong; where rewards judge, what they gave."""
    if "rewards" in record:
        return printable(rewarded.said(record))
    return "right" if record["correct"] else "wrong"


def _part(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"
