"""The GenEval verdict on one image: which clauses of a record its detections fulfil.

It finds no objects and names no colours: detections arrive with both already decided.

Arithmetic has the official evaluator's precision (boxes, confidences and thresholds in float32), so
that a confidence of float32(0.3) is dropped although, as a Python float, it lies just above 0.3.

Source: Ghosh et al. 2023 (arXiv 2310.11513); where the paper is silent, the code decides
(djghosh13/geneval, `evaluation/evaluate_images.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .prompts.records import RELATIONS, validate_spec
from .prompts.records import TASKS as TASKS  # public here, too


@dataclass(frozen=True)
class Detection:
    """One object that a detector found.

    Attributes:
        box: (x0, y0, x1, y1) in pixels, y pointing down; any sequence of four numbers (list, array,
            tensor on any device), kept as a tuple of floats.
        confidence: in [0, 1].
        color: the colour name it was classified as, or None if nobody looked.
        mask: (h, w) bool, True = the object's pixels, or None. The verdict does not use it.
    """

    box: Sequence[float]
    confidence: float
    color: str | None = None
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        box = tuple(float(side) for side in self.box)
        assert len(box) == 4, f"a box is (x0, y0, x1, y1), got {box}"
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "confidence", float(self.confidence))


@dataclass(frozen=True)
class Verdict:
    """What `judge` says of one image.

    Attributes:
        correct: the official verdict.
        score: fraction of passed atomic checks, in [0, 1]; 1.0 exactly if and only if `correct`.
        reason: one line per failed clause, empty when correct.
    """

    correct: bool
    score: float
    reason: str


def judge(
    detections: Mapping[str, Sequence[Detection]],
    spec: Mapping[str, Any],
    *,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_objects: int = 16,
    nms_threshold: float | None = None,
    position_threshold: float = 0.1,
) -> Verdict:
    """The official verdict on one image, with a partial score.

    The score counts one atomic check each for the count, the colour and the position of every
    include clause (as far as the clause asks for them) and one for every exclude clause. A check
    that the evaluator never reaches counts as failed: colour and position after a failed count,
    position after a failed colour or without a target.

    Args:
        detections: class name -> objects found, in any order and of any confidence; classes that
            `spec` does not name are ignored.
        spec: one GenEval record (tag, include, exclude).
        threshold: confidences must lie strictly above it ...
        counting_threshold: ... or strictly above this one if the tag is `counting`.
        max_objects: so many of a class, the most confident, are kept (before the overlap test).
        nms_threshold: an object is dropped whose IoU with a kept, more confident one reaches this;
            None or 1.0 = off.
        position_threshold: share of the summed box sizes by which a centre offset is reduced.

    Raises:
        PromptError: `spec` is malformed.
    """
    validate_spec(spec)
    excludes = spec.get("exclude", ())
    kept = keep(
        detections,
        spec["tag"],
        threshold=threshold,
        counting_threshold=counting_threshold,
        max_objects=max_objects,
        nms_threshold=nms_threshold,
    )
    targets: list[list[Detection] | None] = []
    checks: list[bool] = []
    reasons: list[str] = []

    for clause in spec["include"]:
        found = kept.get(clause["class"], [])[: clause["count"]]
        passed, reason = _judge_include(clause, found, spec["include"], targets, position_threshold)
        targets.append(found if all(passed) else None)
        checks += passed
        reasons += [reason] if reason else []

    for clause in excludes:
        seen = len(kept.get(clause["class"], []))
        checks.append(seen < clause["count"])
        if not checks[-1]:
            reasons.append(
                f"expected fewer than {clause['count']} of {clause['class']}, found {seen}"
            )

    return Verdict(all(checks), sum(checks) / len(checks), "\n".join(reasons))


def rated(
    detections: Mapping[str, Sequence[Detection]],
    spec: Mapping[str, Any],
    *,
    position_threshold: float = 0.1,
    **keeping: Any,
) -> list[tuple[Detection, bool]]:
    """The objects that the verdict looks at, each with whether it is right.

    An object is wrong if it has another colour than its clause asks for, if it lacks the clause's relation to an object of the
    target's class that the verdict took, or if it is one too many for an exclude clause. One that no clause faults is right,
    whatever the image lacks beside it; an object without a colour has none that is wrong.

    Args:
        detections, spec, position_threshold: see `judge`.
        keeping: threshold and the others of `keep`.

    Raises:
        PromptError: `spec` is malformed.
    """
    validate_spec(spec)
    kept = keep(detections, spec["tag"], **keeping)
    looked = [kept.get(clause["class"], [])[: clause["count"]] for clause in spec["include"]]
    right: dict[int, bool] = {}
    objects: dict[int, Detection] = {}

    def note(one: Detection, fine: bool) -> None:
        objects[id(one)] = one
        right[id(one)] = right.get(id(one), True) and fine

    for clause, found in zip(spec["include"], looked, strict=True):
        relation, index = clause.get("position", ("", 0))
        targets = looked[index] if relation else []
        for one in found:
            asked = clause.get("color")
            fine = asked is None or one.color in (None, asked)
            related = (
                relation
                in relative_position(one.box, other.box, position_threshold=position_threshold)
                for other in targets
            )
            note(one, fine and all(related))
    for clause in spec.get("exclude", ()):
        members = kept.get(clause["class"], [])
        for one in members[clause["count"] - 1 :]:
            note(one, False)
    return [(objects[key], fine) for key, fine in right.items()]


def pixels_of(
    box: Sequence[float], mask: NDArray[np.bool_] | None, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """The pixels (h, w) of an object: its mask, without one its whole box."""
    if mask is not None:
        return np.asarray(mask, dtype=bool)
    pixels = np.zeros(size, dtype=bool)
    x0, y0, x1, y1 = (max(0, round(float(side))) for side in box)
    pixels[y0:y1, x0:x1] = True
    return pixels


def keep(
    detections: Mapping[str, Sequence[Detection]],
    tag: str,
    *,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_objects: int = 16,
    nms_threshold: float | None = None,
) -> dict[str, list[Detection]]:
    """The objects that a verdict looks at: of each class with any, the confident ones, best first.

    Args:
        detections: class name -> objects found.
        tag: the task; `counting` has a threshold of its own.
        threshold, counting_threshold, max_objects, nms_threshold: see `judge`.
    """
    least = counting_threshold if tag == "counting" else threshold
    kept = {n: _select(d, least, max_objects, nms_threshold) for n, d in detections.items()}
    return {name: found for name, found in kept.items() if found}


def relative_position(
    box_a: Sequence[float], box_b: Sequence[float], *, position_threshold: float = 0.1
) -> tuple[str, ...]:
    """The relations of A to B that hold, in the order of RELATIONS: none, one, or one per axis.

    The offset of the box centres is reduced, per axis and towards 0, by position_threshold *
    (size A + size B), then divided by the norm of the offset *before* that reduction; a relation
    holds beyond 0.5.

    Args:
        box_a, box_b: (x0, y0, x1, y1) in pixels, y pointing down.
        position_threshold: 0 for points; larger wants clearer placement.
    """
    boxes = np.array([[float(v) for v in box_a], [float(v) for v in box_b]], dtype=np.float32)
    corners = boxes.reshape(2, 2, 2)  # box, corner, axis
    centers = corners.mean(axis=1)
    sizes = np.abs(corners[:, 1] - corners[:, 0])
    offset = centers[0] - centers[1]
    slack = np.float32(position_threshold) * (sizes[0] + sizes[1])
    reduced = np.maximum(np.abs(offset) - slack, np.float32(0)) * np.sign(offset)
    # Below a thousandth of a pixel there is no direction left, and the norm may be 0.
    if np.all(np.abs(reduced) < np.float32(1e-3)):
        return ()
    dx, dy = reduced / np.linalg.norm(offset)
    return tuple(
        relation
        for relation, extent in zip(RELATIONS, (-dx, dx, -dy, dy), strict=True)
        if extent > 0.5
    )


def _select(
    detections: Sequence[Detection], least: float, max_objects: int, nms_threshold: float | None
) -> list[Detection]:
    """The objects of one class that count, most confident first; of two equals, the later first."""
    confidences = np.array([found.confidence for found in detections], dtype=np.float32)
    # Ascending, then reversed, as the evaluator sorts: this puts the later of two equals first.
    order = np.argsort(confidences, kind="stable")[::-1]
    order = order[confidences[order] > np.float32(least)][:max_objects]
    ranked = [detections[i] for i in order.tolist()]
    if nms_threshold is None or nms_threshold == 1:
        return ranked
    kept: list[Detection] = []
    for candidate in ranked:
        if all(_iou(winner.box, candidate.box) < nms_threshold for winner in kept):
            kept.append(candidate)
    return kept


def _iou(box_a: Sequence[float], box_b: Sequence[float]) -> float:
    """Intersection over union of boxes whose last row and column are counted in (+ 1 pixel)."""
    a, b = np.array(box_a, dtype=np.float32), np.array(box_b, dtype=np.float32)
    overlap = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    union = _area(a) + _area(b) - overlap
    return overlap / union if union else 0.0


def _area(box: NDArray[np.float32]) -> float:
    width, height = (float(side) + 1.0 for side in box[2:] - box[:2])
    return max(width, 0.0) * max(height, 0.0)


def _judge_include(
    clause: Mapping[str, Any],
    found: list[Detection],
    asked_for: Sequence[Mapping[str, Any]],
    targets: list[list[Detection] | None],
    position_threshold: float,
) -> tuple[list[bool], str]:
    """Judges one include clause by its first `count` objects.

    Args:
        found: the at most `count` most confident objects of the class.
        asked_for: all include clauses.
        targets: per earlier clause its objects, None where that clause failed.

    Returns:
        One bool per atomic check of the clause, and the reason of the first failure ("" if none).
    """
    asked = 1 + ("color" in clause) + ("position" in clause)
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return [False] * asked, f"expected at least {count} of {name}, found {len(found)}"
    passed = [True]

    if "color" in clause:
        reason = _color_fault(clause["color"], name, found)
        if reason:
            return passed + [False] * (asked - len(passed)), reason
        passed.append(True)

    if "position" in clause:
        relation, index = clause["position"]
        wanted = f"expected {name} {relation} {asked_for[index]['class']}"
        fault = _position_fault(relation, found, targets[index], position_threshold)
        reason = f"{wanted}, {fault}" if fault else ""
        passed.append(not reason)
        return passed, reason

    return passed, ""


def _color_fault(color: str, name: str, found: list[Detection]) -> str:
    """Why the objects are not all of this colour ("" if they are)."""
    matching = sum(detection.color == color for detection in found)
    if matching == len(found):
        return ""
    colors = ", ".join(detection.color or "no colour" for detection in found)
    return f"expected {len(found)} {color} {name}, found {matching} (by confidence: {colors})"


def _position_fault(
    relation: str,
    found: Iterable[Detection],
    target: list[Detection] | None,
    position_threshold: float,
) -> str:
    """Why the relation fails for some pair of object and target ("" if it holds for every pair)."""
    if target is None:
        return "which is not there as the prompt asks for it"
    for detection in found:
        for other in target:
            held = relative_position(
                detection.box, other.box, position_threshold=position_threshold
            )
            if relation not in held:
                seen = " and ".join(held) or "no clear relation"
                return f"found {seen}"
    return ""
