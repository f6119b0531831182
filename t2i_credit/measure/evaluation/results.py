"""Results in GenEval's own format, anybody's: one JSON object a line for each image, with its verdict. Judges nothing.

    {"filename": "00000/samples/0000.png", "tag": "counting", "prompt": "a photo of two clocks", "correct": true,
     "reason": "", "metadata": "{\\"tag\\": ...}", "details": "{\\"clock\\": [[x0, y0, x1, y1, confidence], ...]}"}

Images of one record (metadata) are of one prompt, in whatever order they stand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import RunError, one_line
from .protocol import Protocol
from .scores import Entry, Evaluation, Record, read_text

NEEDED = ("tag", "prompt", "correct", "metadata")


def load_results(path: Path | str) -> Evaluation:
    """Reads results in GenEval's format; how the images were made and judged is unknown.

    Raises:
        RunError: one line that names the file, the line, and what is wrong with it.
    """
    # only "\n" ends a line: str.splitlines would also cut at a U+2028 inside a JSON text
    lines = enumerate(read_text(Path(path)).split("\n"), 1)
    entries = [_entry(line, f"{path}:{n}") for n, line in lines if line.strip()]
    if not entries:
        raise RunError(f"{path}: holds no result; one JSON object a line is expected")
    return Evaluation.gather(Protocol.of_results(), entries, {"results": str(path)})


def _entry(line: str, where: str) -> Entry:
    """The record of an image."""
    found = _object(line, where)
    if lacking := [key for key in NEEDED if key not in found]:
        raise RunError(
            f"{where}: key {lacking[0]!r} is missing; GenEval's results have {', '.join(NEEDED)}"
        )
    for key in ("tag", "prompt"):
        if not isinstance(found[key], str) or not found[key] or found[key] == "overall":
            raise RunError(
                f"{where}: {key} must be a text, not empty, not 'overall'; got {found[key]!r:.60}"
            )
    if found["correct"] not in (True, False):
        raise RunError(f"{where}: correct must be true or false, got {found['correct']!r:.60}")
    metadata = _object(found["metadata"], f"{where}: metadata")
    if metadata.get("tag", found["tag"]) != found["tag"]:
        raise RunError(
            f"{where}: tag is {found['tag']!r}, that of its metadata {metadata['tag']!r:.60}"
        )
    details = _object(found.get("details") or {}, f"{where}: details")
    if not all(map(_boxes, details.values())):
        raise RunError(f"{where}: details must be {{class: [[x0, y0, x1, y1, confidence], ...]}}")
    return [_record(found, metadata, details)], None, None


def _record(found: Record, metadata: Record, details: Record) -> Record:
    score = found.get("score")
    return {
        "filename": str(found.get("filename") or ""),
        "tag": found["tag"],
        "prompt": found["prompt"],
        "correct": bool(found["correct"]),
        "reason": str(found.get("reason") or ""),
        "metadata": json.dumps(metadata),
        "details": json.dumps(details),
        "score": score if isinstance(score, int | float) else None,
        "fault": str(found.get("fault") or ""),
    }


def _object(value: Any, where: str) -> Record:
    """A JSON object, written out or as a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{where}: is not JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise RunError(f"{where}: must be a JSON object, got {value!r:.60}")
    return value


def _boxes(found: Any) -> bool:
    """Whether these are boxes with a confidence."""
    return isinstance(found, list) and all(
        isinstance(box, list) and len(box) == 5 and all(isinstance(v, int | float) for v in box)
        for box in found
    )
