"""Pictures with true captions, with ratings, and spoiled: what reward models learn from.

A spoiled picture is blurred, noisy, tinted or cluttered to a known degree. Judges none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...geneval import Detection, judge
from .grammar import Record, draw, sample_record
from .mistakes import neighbour
from .scene import Scene, render

Image = NDArray[np.uint8]
_MOST_BLUR = 3.5  # pixels, standard deviation
_MOST_NOISE = 90.0  # levels, standard deviation
_MOST_CAST = 0.75  # share of the foreign colour
_MOST_SPECKS = 45

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


def soften(image: Image, sigma: float) -> Image:
    """Gaussian blur with a standard deviation in pixels: at up to half a pixel, what an image tokenizer does."""
    soft = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")
    return _to_levels(soft)


def _blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    return soften(image, _MOST_BLUR * strength)


def _noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    grain = rng.normal(0.0, _MOST_NOISE * strength, size=image.shape)
    return _to_levels(image + grain)


def _cast(image: Image, strength: float, rng: np.random.Generator) -> Image:
    foreign = np.zeros(3)
    foreign[rng.permutation(3)[: rng.integers(1, 3)]] = 255.0  # one or two channels: never grey
    share = _MOST_CAST * strength
    return _to_levels((1 - share) * image + share * foreign)


def _clutter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    drawn = image.copy()
    h, w = image.shape[:2]
    for _ in range(round(_MOST_SPECKS * strength)):
        y, x = rng.integers(h), rng.integers(w)
        tall, wide = rng.integers(1, 6, size=2)
        drawn[y : y + tall, x : x + wide] = rng.integers(0, 256, size=3)
    return drawn


SPOILS: dict[str, Callable[[Image, float, np.random.Generator], Image]] = {
    "blur": _blur,
    "noise": _noise,
    "cast": _cast,
    "clutter": _clutter,
}


def spoil(image: Image, kind: str, strength: float, rng: np.random.Generator) -> Image:
    """The image, spoiled.

    Args:
        image: (h, w, 3) uint8, left as it is.
        kind: a name out of SPOILS.
        strength: in [0, 1].
        rng: of grain, colour and places.

    Returns:
        (h, w, 3) uint8.
    """
    assert 0.0 <= strength <= 1.0, strength
    return SPOILS[kind](image, strength, rng)


def _to_levels(values: NDArray[np.floating]) -> Image:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
