"""Pictures with true captions, and pictures with ratings: what the embedded reward models learn from and are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geneval import Detection, judge
from .grammar import Record, draw, neighbour, sample_record
from .scene import Scene, render
from .spoil import SPOILS, soften, spoil

FLAWS = {"blur": "blurred", "noise": "noisy", "cast": "tinted", "clutter": "cluttered"}
SOFTEST = 0.5  # pixels; how soft a clean image may be, since generators decode a little softly


@dataclass(frozen=True)
class Example:
    """A scene, its picture (h, w, 3) uint8, the flaw that its caption names (or None), its record and true caption."""

    record: Record
    scene: Scene
    image: NDArray[np.uint8]
    flaw: str | None

    @property
    def caption(self) -> str:
        prompt: str = self.record["prompt"]
        return prompt if self.flaw is None else f"{prompt}, {FLAWS[self.flaw]}"


def clean_image(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scene as it is rendered, or as softly as a generator may decode it."""
    image = render(scene)[0]
    return soften(image, rng.uniform(0, SOFTEST)) if rng.random() < 0.5 else image


def examples(count: int, flawed_share: float, rng: np.random.Generator) -> list[Example]:
    """Scenes with true captions; most captions have a neighbour among them that differs in one word."""
    found: list[Example] = []
    while len(found) < count:
        record = sample_record(rng)
        other = neighbour(record, rng)
        for shown in (record, other):
            if shown is not None:
                found.append(_example(shown, flawed_share, rng))
    return found[:count]


def _example(record: Record, flawed_share: float, rng: np.random.Generator) -> Example:
    scene = draw(record, rng)
    if rng.random() >= flawed_share:
        return Example(record, scene, clean_image(scene, rng), None)
    flaw = str(rng.choice(list(SPOILS)))
    return Example(record, scene, spoil(render(scene)[0], flaw, rng.uniform(0.25, 1), rng), flaw)


def describes(record: Record, scene: Scene) -> bool:
    """Whether a caption is true of a scene and leaves no object of it out."""
    named = [c["class"] for c in record["include"] for _ in range(c["count"])]
    if sorted(named) != sorted(o.shape for o in scene.objects):
        return False
    detections: dict[str, list[Detection]] = {}
    for o in scene.objects:
        detections.setdefault(o.shape, []).append(Detection(o.box, 1.0, o.color))
    return judge(detections, record).correct


def true_captions(batch: Sequence[Example]) -> NDArray[np.bool_]:
    """(B, B): whether the caption of example j is true of the image of example i."""
    rows = [[a.flaw == b.flaw and describes(b.record, a.scene) for b in batch] for a in batch]
    return np.asarray(rows)


def rated_scenes(
    count: int, clean_share: float, rng: np.random.Generator
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64], list[str]]:
    """Spoiled scenes: N images (h, w, 3), strengths (N,) in [0, 1], kinds ("" = clean)."""
    images, strengths, kinds = [], [], []
    for _ in range(count):
        scene = draw(sample_record(rng), rng)
        if rng.random() < clean_share:
            kind, strength, image = "", 0.0, clean_image(scene, rng)
        else:
            kind, strength = str(rng.choice(list(SPOILS))), float(rng.uniform(0, 1))
            image = spoil(render(scene)[0], kind, strength, rng)
        images.append(image)
        strengths.append(strength)
        kinds.append(kind)
    return images, np.asarray(strengths), kinds


def rating(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """On the scale of the ratings that LAION's heads were trained on: 10 for a clean picture, 1 for a ruined one."""
    return 10.0 - 9.0 * strength
