"""Records and detections for GenEval verdicts. Holds no test."""

from __future__ import annotations

from typing import Any

from t2i_credit.geneval import Detection

# y points down. All boxes are 10 x 10, so two of them reduce an offset by 0.1 * (10 + 10) = 2.
CENTRE, LEFT, RIGHT = (100, 40, 110, 50), (0, 40, 10, 50), (200, 40, 210, 50)
ABOVE, BELOW = (100, 0, 110, 10), (100, 80, 110, 90)


def seen(box: Any = CENTRE, confidence: float = 0.95, color: str | None = None) -> Detection:
    return Detection(box, confidence, color)


def clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def record(*include: Any, exclude: Any = (), tag: str = "position") -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "exclude": list(exclude), "prompt": "a photo"}


DOG_RIGHT_OF_CUP = record(clause("cup"), clause("dog", position=["right of", 0]))

# Last row and column are counted in: A and B cover 10 x 10 pixels each and share columns 5..9, so
# IoU(A, B) = 50 / 150 = 1/3 (without the + 1 it would be 36 / 126 = 0.286). B and C alike; A and C
# share nothing: 9 - 10 + 1 = 0 columns.
A, B, C = (0, 0, 9, 9), (5, 0, 14, 9), (10, 0, 19, 9)
