"""The images of an evaluation: by prompt, worst first, filtered by task and verdict, each beside what it was before."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..errors import RunError
from ..heatmap.text import printable
from ..run_folder.reader import RunReader
from . import components, rewarded
from .payload import picture_url, plain
from .reports import records_before
from .runs import RunShelf, known_numbers, or_in_words
from .texts import is_text

PER_PAGE = 48  # images, or a prompt more
LONGEST = 384  # pixels of a picture
VERDICTS = ("wrong", "right", "missing", "gained", "lost")
ORDERS = ("worst first", "in order")
DAMAGES = (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError)

Record = Mapping[str, Any]


@or_in_words(lambda why, *_: components.note("The images of this evaluation cannot be shown", why))
def page_of(
    shelf: RunShelf, run: str | None, name: str | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """One page of the gallery.

    Args:
        shelf, run, name: the evaluation.
        asked: "task", "verdict" (all, or one of `VERDICTS`), "order" (one of `ORDERS`) and "page" (from 0); others are
            ignored.
    """
    reader = shelf.open(run)
    if is_text(reader):
        says = f"The answers and their verdicts are in evaluations/{name}.jsonl of the run."
        return components.note("No image to show", says)
    records = reader.evaluation_images(str(name))
    if not records:
        return components.note("No record per image", "This evaluation kept its scores alone.")
    earlier = records_before(reader, str(name))
    check(records, f"{reader.path}: evaluations/{name}.jsonl")
    check(earlier, f"{reader.path}: evaluations/{name}/before/evaluation.jsonl")
    return gallery_page(reader, str(name), records, earlier, asked)


def check(records: Sequence[Record], where: str) -> None:
    """Raises RunError where a record is damaged; says which line."""
    for number, record in enumerate(records, start=1):
        try:
            _ = (record["filename"], record["tag"], record["prompt"], verdict(record))
            hash((_key(record), record.get("prompt_index"), record["tag"]))
            boxes(record)
        except DAMAGES as error:
            raise RunError(f"{where}, line {number}: a damaged record") from error


def gallery_page(
    reader: RunReader,
    name: str,
    records: Sequence[Record],
    earlier: Sequence[Record],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """What the gallery shows: the prompts of a task with their images of a verdict, page by page."""
    were = {_key(record): record for record in earlier}
    changes = [change(record, were.get(_key(record))) for record in records]
    judged = any("correct" in record for record in records)
    tasks = list(dict.fromkeys(_task(record) for record in records))
    task = asked.get("task") if asked.get("task") in tasks else "all"
    counts = dict.fromkeys(VERDICTS, 0) if judged else {}
    cards: dict[Any, dict[str, Any]] = {}
    wished = asked.get("verdict") if asked.get("verdict") in counts else "all"
    total = 0
    for record, changed in zip(records, changes, strict=True):
        if task not in ("all", _task(record)):
            continue
        total += 1
        kinds = {verdict(record), changed}
        for kind in kinds & set(counts):
            counts[kind] += 1
        place = record.get("prompt_index"), record["prompt"], record["tag"]
        card = cards.setdefault(place, {"all": [], "shown": []})
        card["all"].append(record)
        if wished == "all" or wished in kinds:
            card["shown"].append((record, changed))
    shown = [card for card in cards.values() if card["shown"]]
    order = asked.get("order") if asked.get("order") in ORDERS else ORDERS[0]
    if order == ORDERS[0]:
        shown.sort(key=_worth)
    pages = paged(shown)
    number = asked.get("page")
    page = min(max(0, number), len(pages) - 1) if isinstance(number, int) else 0
    side = canvas_side(records)
    return plain(
        {
            "tasks": tasks,
            "task": task,
            "verdict": wished,
            "verdicts": {"all": total, **{k: n for k, n in counts.items() if n or k == wished}}
            if judged
            else {},
            "orders": list(ORDERS),
            "order": order,
            "page": page,
            "pages": len(pages),
            "prompts": len(shown),
            "total": sum(len(card["shown"]) for card in shown),
            "cards": [card_of(reader, name, card, were, side) for card in pages[page]],
            "sent": time.time(),
        }
    )


def paged(cards: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The cards page by page; at least one page."""
    pages: list[list[dict[str, Any]]] = [[]]
    images = 0
    for card in cards:
        if images >= PER_PAGE:
            pages.append([])
            images = 0
        pages[-1].append(card)
        images += len(card["shown"])
    return pages


def card_of(
    reader: RunReader,
    name: str,
    card: Mapping[str, Any],
    were: Mapping[Any, Record],
    side: float,
) -> dict[str, Any]:
    """One prompt: how many of its images are right and were so before, and those that are shown."""
    every = card["all"]
    old = [were[_key(record)] for record in every if _key(record) in were]
    items = []
    for record, changed in card["shown"]:
        item = gallery_item(reader, name, record, side)
        before = were.get(_key(record))
        was = gallery_item(reader, name, before, side, before=True) if before else None
        items.append({**item, "change": changed, "before": was})
    judged = "correct" in every[0]
    return {
        "prompt": printable(str(every[0]["prompt"])),
        "task": _task(every[0]),
        "right": sum(bool(record["correct"]) for record in every) if judged else None,
        "was": sum(bool(record.get("correct")) for record in old) if judged and old else None,
        "of": len(every),
        "items": items,
    }


def gallery_item(
    reader: RunReader, name: str, record: Record, side: float, *, before: bool = False
) -> dict[str, Any]:
    """One image: its picture if it was kept, every detection, the verdict and its reason."""
    file = f"before/{record['filename']}" if before else str(record["filename"])
    picture = reader.evaluation_image(name, file)
    size = picture.size if picture else (side, side)
    return {
        "image": picture_url(picture, LONGEST) if picture else None,
        "size": list(size),
        "prompt": printable(str(record["prompt"])),
        "task": _task(record),
        "verdict": verdict(record),
        "reason": printable(str(record.get("reason") or "")),
        "score": record.get("score"),
        "boxes": boxes(record),
    }


def boxes(record: Record) -> list[dict[str, Any]]:
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


def canvas_side(records: Sequence[Record]) -> float:
    """The side of the square that all boxes fit in, a multiple of 16: for images whose pixels were not kept."""
    most = max((max(one["box"]) for record in records for one in boxes(record)), default=16.0)
    return float(16 * -(-most // 16))


def verdict(record: Record) -> str:
    """Right, wrong or missing; where rewards judge, what they gave."""
    if "rewards" in record:
        return printable(rewarded.said(record))
    if record.get("fault"):
        return "missing"
    return "right" if record["correct"] else "wrong"


def change(record: Record, before: Record | None) -> str:
    """Gained or lost; "" where nothing changed, or nobody knows."""
    if before is None or not ("correct" in record and "correct" in before):
        return ""
    was, is_now = bool(before["correct"]), bool(record["correct"])
    return "" if was == is_now else "gained" if is_now else "lost"


def _worth(card: Mapping[str, Any]) -> tuple[float, float]:
    """Least first: right images of a prompt and pictures that are there; where rewards judge, the mean of the first."""
    records = card["all"]
    if "correct" in records[0]:
        there = sum(not record.get("fault") for record in records)
        return float(sum(bool(record["correct"]) for record in records)), float(there)
    first = [next(iter(record["rewards"].values()), None) for record in records]
    known = known_numbers(first)
    return (fmean(known) if known else float("-inf")), float(len(known))


def _key(record: Record) -> tuple[Any, ...]:
    """What an image and the one before it have in common."""
    if "sample_index" in record:
        return record.get("prompt_index"), record.get("sample_index"), record["prompt"]
    return record["filename"], record["prompt"]


def _task(record: Record) -> str:
    return printable(str(record["tag"]))
