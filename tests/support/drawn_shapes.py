"""Records and scenes of the shapes world, and what was drawn and found. Holds no test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i_credit.geneval import Detection
from t2i_credit.prompts.records import caption
from t2i_credit.worlds.shapes.scene import Object, Scene


def clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def record(task: str, *include: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"tag": task, "include": list(include)}
    if task == "counting":
        spec["exclude"] = [clause(include[0]["class"], include[0]["count"] + 1)]
    return {**spec, "prompt": caption(spec)}


def words(spec: dict[str, Any]) -> tuple[Any, ...]:
    """What the include clauses say, word by word."""
    return tuple(
        word
        for c in spec["include"]
        for word in (c["class"], c["count"], c.get("color"), *c.get("position", ()))
    )


def one(shape: str, color: str = "blue", x: float = 24.0, y: float = 24.0, r: float = 9.0) -> Scene:
    return Scene((Object(shape, color, x, y, r),))


@dataclass
class Drawn:
    record: dict[str, Any]
    scene: Scene
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    found: dict[str, list[Detection]]
