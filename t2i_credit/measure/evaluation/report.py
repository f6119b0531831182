"""An evaluation as one page of HTML with everything in it: scores, every image with its boxes and verdict, the protocol.

The page is one file that needs no network, script library or folder beside it. Judges nothing.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from ...run_folder.atomic import write_atomic
from ..intervals import verdict
from .image_folder import load_image
from .scores import Evaluation, match

THUMBNAIL = 256  # pixels of the longer side; smaller images stay as they are
PIXELATED = 128  # images up to this size are shown with hard pixels
_NAMES = {
    "images_per_prompt": "images per prompt",
    "cfg_scale": "guidance scale",
    "template": "prompt template",
    "nms_threshold": "overlap threshold",
    "threshold": "least confidence",
    "counting_threshold": "least confidence, counting",
    "max_objects": "objects per class, at most",
    "position_threshold": "position slack",
}


def write_report(
    path: Path,
    name: str,
    evaluation: Evaluation,
    *,
    images: Path | None,
    before: Evaluation | None = None,
    before_images: Path | None = None,
    changes: Mapping[str, Mapping[str, float | None]] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Args:
        path: the file.
        name: of the evaluation.
        evaluation: what to show.
        images: the folder that its file names are relative to; None or an absent file = no picture.
        before, before_images, changes: of a comparison.
        warnings: lines that a reader should see first.

    Raises:
        RunError: the disk refuses.
    """
    from jinja2 import Environment, StrictUndefined

    here = files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = lambda value: "unknown" if value is None else f"{value:.3f}"
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    environment.filters["percent"] = lambda value: f"{100 * value:.2f}%"
    sign = {1: "up", -1: "down", 0: "even"}
    environment.filters["direction"] = lambda change: sign[verdict(change["low"], change["high"])]
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    summary = evaluation.summary()
    overall = summary.pop("overall")
    cards = _cards(evaluation, images, before, before_images)
    page = template.render(
        name=name,
        model=_model(evaluation),
        other=_model(before) if before else None,
        date=str(evaluation.about.get("date", ""))[:10],
        overall=overall,
        images_each=evaluation.images_each(),
        tasks=summary,
        changes=changes,
        cards=cards,
        counts=_counts(cards),
        protocol=_protocol(evaluation),
        warnings=warnings,
        css=(here / "report.css").read_text(encoding="utf-8"),
        js=(here / "report.js").read_text(encoding="utf-8"),
    )
    write_atomic(path, page.encode())
    return path


def _model(evaluation: Evaluation) -> str:
    """What drew the images, as far as that is known."""
    about = evaluation.about
    model = str(about.get("model") or about.get("images") or about.get("results") or "images")
    return f"{model}, step {about['step']}" if about.get("step") and "@" not in model else model


def _cards(
    evaluation: Evaluation,
    images: Path | None,
    before: Evaluation | None,
    before_images: Path | None,
) -> list[dict[str, Any]]:
    """One per prompt, those with the most failures first."""
    earlier: dict[int, list[dict[str, Any]]] = {}
    if before:
        rows = before.rows()
        places = match(before, evaluation.protocol, evaluation.asked())
        earlier = {p: rows[place] for p, place in enumerate(places)}
    cards = []
    for p, (records, negative) in enumerate(
        zip(evaluation.rows(), evaluation.negatives, strict=True)
    ):
        pictures = [_picture(record, images) for record in records]
        # prompts may have different numbers of images
        for picture, record in zip(pictures, earlier.get(p, []), strict=False):
            picture["before"] = _picture(record, before_images)
            was = picture["before"]["right"]
            change = {(False, True): "gained", (True, False): "lost"}
            picture["change"] = change.get((was, picture["right"]), "")
        record = records[0]
        cards.append(
            {
                "number": p,
                "text": record["prompt"],
                "task": record["tag"],
                "negative": negative,
                "right": sum(picture["right"] for picture in pictures),
                "was_right": sum(r["correct"] for r in earlier[p]) if before else None,
                "pictures": pictures,
            }
        )
    # failures first, and the set's order among equals
    return sorted(cards, key=lambda c: (c["right"], -sum(bool(x["fault"]) for x in c["pictures"])))


def _picture(record: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """An image with its boxes and what was said of it."""
    details = json.loads(record.get("details") or "{}")
    colors = record.get("colors") or {}
    boxes = []
    for kind, found in details.items():
        named = colors.get(kind) or [None] * len(found)
        for (x0, y0, x1, y1, confidence), color in zip(found, named, strict=True):
            label = f"{color} {kind}" if color else kind
            box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            boxes.append({**box, "label": label, "confidence": confidence})
    return {
        **_thumbnail(folder / record["filename"] if folder else None),
        "file": record["filename"],
        "right": bool(record["correct"]),
        "fault": record.get("fault", ""),
        "reasons": record["reason"].split("\n") if record["reason"] else [],
        "boxes": boxes,
        "change": "",
        "before": None,
    }


def _thumbnail(path: Path | None) -> dict[str, Any]:
    """The picture as a data address, and the size that boxes refer to; no address if there is no picture."""
    pixels = load_image(path) if path else "missing"
    if isinstance(pixels, str):
        return {"src": "", "width": 1, "height": 1, "small": False}
    picture = Image.fromarray(pixels)
    width, height = picture.size
    small = max(picture.size) <= PIXELATED
    kind, how = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 82})
    picture.thumbnail((THUMBNAIL, THUMBNAIL))  # leaves a small one as it is
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    data = base64.b64encode(buffer.getvalue()).decode()
    src = f"data:image/{kind};base64,{data}"
    return {"src": src, "width": width, "height": height, "small": small}


def _counts(cards: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many images each verdict of the filter has."""
    pictures = [picture for card in cards for picture in card["pictures"]]
    return {
        "all": len(pictures),
        "wrong": sum(not p["right"] and not p["fault"] for p in pictures),
        "right": sum(p["right"] for p in pictures),
        "missing": sum(bool(p["fault"]) for p in pictures),
        "gained": sum(p["change"] == "gained" for p in pictures),
        "lost": sum(p["change"] == "lost" for p in pictures),
    }


def _protocol(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Everything that the scores depend on, as name and value."""
    about, summary = evaluation.about, evaluation.summary()["overall"]
    rows = [("prompts", f"{about.get('prompts', 'given')} ({summary['prompts']})")]
    settings = evaluation.protocol.to_dict()
    for name, value in {**settings, "images_per_prompt": evaluation.images_each()}.items():
        if name != "batch_size":
            off = name == "nms_threshold" and settings["detector"] is not None
            unknown = "off" if off else "unknown"
            rows.append((_NAMES.get(name, name), unknown if value is None else str(value)))
    rows.append(
        (
            "intervals",
            "95%, over prompts within tasks: Clopper-Pearson at the effective sample size; changes: t",
        )
    )
    if "t2i_credit" in about:
        rows.append(("t2i-credit", str(about["t2i_credit"])))
    return rows
