"""An evaluation as one page of HTML with everything in it: scores, every image with its boxes and verdict, the protocol.

The page is one file that needs no network, script library or folder beside it. Judges nothing.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from ...run_folder.atomic import write_atomic
from ..intervals import decimals, or_none, verdict
from .image_folder import load_image
from .protocol import SAMPLING
from .rewards import Rows, prompt_rewards
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
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    here = files(__package__)
    environment = Environment(
        loader=FunctionLoader(lambda name: (here / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda value: "unknown" if value is None else f"{value:.3f}"
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    environment.filters["figure"] = lambda value, digits: (
        "unknown" if value is None else f"{value:.{digits}f}"
    )
    environment.filters["moved"] = lambda value, digits: (
        "unknown" if value is None else f"{value:+.{digits}f}"
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.2f}%"
    sign = {1: "up", -1: "down", 0: "even"}
    environment.filters["direction"] = lambda change: sign[verdict(change["low"], change["high"])]
    rows, earlier = evaluation.rows(), _earlier(evaluation, before)
    if evaluation.protocol.rewards:
        kind = "rewards.html"
        shown = _reward_parts(evaluation, rows, earlier, images, before_images)
    else:
        kind, summary = "report.html", evaluation.summary()
        cards = _cards(rows, evaluation.negatives, earlier, images, before_images)
        shown = {"overall": summary.pop("overall"), "tasks": summary}
        shown |= {"cards": cards, "counts": _counts(cards)}
    page = environment.get_template(kind).render(
        name=name,
        model=_model(evaluation),
        other=_model(before) if before else None,
        date=str(evaluation.about.get("date", ""))[:10],
        images_each=evaluation.images_each(),
        changes=changes,
        protocol=_protocol(evaluation),
        warnings=warnings,
        css=(here / "report.css").read_text(encoding="utf-8"),
        js=(here / "report.js").read_text(encoding="utf-8"),
        **shown,
    )
    write_atomic(path, page.encode())
    return path


def _model(evaluation: Evaluation) -> str:
    """What drew the images, as far as that is known."""
    about = evaluation.about
    folder = Path(str(about["images"])).name if about.get("images") else None  # not where it lies
    model = str(about.get("model") or folder or about.get("results") or "images")
    return f"{model}, step {about['step']}" if about.get("step") and "@" not in model else model


def _earlier(evaluation: Evaluation, before: Evaluation | None) -> Rows | None:
    """(P) what was found before about each prompt's images."""
    if before is None:
        return None
    rows = before.rows()
    return [rows[place] for place in match(before, evaluation.protocol, evaluation.asked())]


def _cards(
    rows: Rows,
    negatives: Sequence[str | None],
    earlier: Rows | None,
    images: Path | None,
    before_images: Path | None,
) -> list[dict[str, Any]]:
    """One per prompt, those with the most failures first."""
    cards = []
    for p, (records, negative) in enumerate(zip(rows, negatives, strict=True)):
        pictures = [_picture(record, images) for record in records]
        # prompts may have different numbers of images
        for picture, record in zip(pictures, earlier[p] if earlier else [], strict=False):
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
                "was_right": sum(r["correct"] for r in earlier[p]) if earlier else None,
                "pictures": pictures,
            }
        )
    # failures first, and the set's order among equals
    return sorted(cards, key=lambda c: (c["right"], -sum(bool(x["fault"]) for x in c["pictures"])))


def _reward_parts(
    evaluation: Evaluation,
    rows: Rows,
    earlier: Rows | None,
    images: Path | None,
    before_images: Path | None,
) -> dict[str, Any]:
    """What the page of rewards shows: figures, a strip of all prompts for each reward, and the prompts' images."""
    rewards = evaluation.summary()
    of_prompts = {name: prompt_rewards(rows, name).tolist() for name in rewards}
    of_earlier = {name: prompt_rewards(earlier or [], name).tolist() for name in rewards}
    cards = []
    for p, records in enumerate(rows):
        pictures = [_rewarded(record, images) for record in records]
        for picture, record in zip(pictures, earlier[p] if earlier else [], strict=False):
            picture["before"] = _rewarded(record, before_images)
        means = {name: or_none(values[p]) for name, values in of_prompts.items()}
        was = {name: or_none(values[p]) for name, values in of_earlier.items() if values}
        changes: dict[str, float | None] = {}
        for name, then in was.items():
            now = means[name]
            changes[f"change of {name}"] = None if now is None or then is None else now - then
        cards.append(
            {
                "number": p,
                "text": records[0]["prompt"],
                "negative": evaluation.negatives[p],
                "means": means,
                "earlier": was,
                "order": {**means, **changes, "number": p},
                "pictures": pictures,
            }
        )
    strips = {name: _strip(of_prompts[name], of_earlier[name]) for name in rewards}
    digits = {name: decimals((row["mean"], row["best"])) for name, row in rewards.items()}
    return {"rewards": rewards, "strips": strips, "cards": cards, "digits": digits}


def _rewarded(record: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """An image with its rewards."""
    picture = _thumbnail(folder / record["filename"] if folder else None)
    shown = {"rewards": record["rewards"], "fault": record["fault"], "boxes": [], "before": None}
    return picture | shown


def _strip(after: Sequence[float], before: Sequence[float]) -> dict[str, Any]:
    """Where each prompt's reward lies between the lowest and the highest of all, in thousandths."""
    every = [value for value in (*after, *before) if math.isfinite(value)]
    low, high = min(every), max(every)
    lines = []
    for kind, values in (("after", after), ("before", before)):
        known = [value for value in values if math.isfinite(value)]
        at = [round(10 + 980 * (value - low) / ((high - low) or 1), 1) for value in known]
        label = kind if before else "prompts"
        mean = sum(at) / len(at) if at else None
        lines.append({"kind": kind, "label": label, "at": at, "mean": mean})
    return {"low": low, "high": high, "lines": lines if before else lines[:1]}


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
    about, settings = evaluation.about, evaluation.protocol.to_dict()
    rows = [("prompts", f"{about.get('prompts', 'given')} ({len(evaluation.rows())})")]
    if rewards := settings.pop("rewards", None):
        settings = {name: settings[name] for name in ("images_per_prompt", *SAMPLING)}
        rows.append(("judged by", evaluation.protocol.judges()))
    for name, value in {**settings, "images_per_prompt": evaluation.images_each()}.items():
        if name != "batch_size":
            off = name == "nms_threshold" and settings["detector"] is not None
            unknown = "off" if off else "unknown"
            rows.append((_NAMES.get(name, name), unknown if value is None else str(value)))
    how = "over prompts within tasks: Clopper-Pearson at the effective sample size; changes: t"
    rows.append(("intervals", "95%, t, over prompts" if rewards else f"95%, {how}"))
    if about.get("negative") is not None:
        rows.append(("negative prompt of all", str(about["negative"]) or "(empty)"))
    if "t2i_credit" in about:
        rows.append(("t2i-credit", str(about["t2i_credit"])))
    return rows
