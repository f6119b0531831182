"""The detector of the shapes world: on its scenes, and on everything else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from drawn_shapes import Drawn, one, words
from numpy.typing import NDArray

from t2i_credit.geneval import judge
from t2i_credit.prompts.records import TASKS
from t2i_credit.worlds.shapes.detector import classes, detect
from t2i_credit.worlds.shapes.mistakes import shown_record
from t2i_credit.worlds.shapes.scene import BACKGROUND, COLORS, SHAPES, SIZE, render


def picture(shape: str, **where: Any) -> NDArray[np.uint8]:
    return render(one(shape, **where))[0]


def flat(color: tuple[int, int, int], h: int = SIZE, w: int = SIZE) -> NDArray[np.uint8]:
    return np.full((h, w, 3), color, np.uint8)


# ---- the detector on scenes


@pytest.mark.parametrize("task", TASKS)
def test_the_judge_passes_freshly_drawn_scenes(task: str, drawn: dict[str, list[Drawn]]) -> None:
    correct = [judge(d.found, d.record).correct for d in drawn[task]]
    assert np.mean(correct) >= 0.99


def test_the_judge_fails_a_scene_with_one_wrong_word(drawn: dict[str, list[Drawn]]) -> None:
    rng = np.random.default_rng(8)
    for d in itertools.chain.from_iterable(drawn.values()):
        shown = shown_record(d.record, rng)
        if judge(d.found, d.record).correct and words(shown) != words(d.record):
            assert not judge(d.found, shown).correct


def test_boxes_and_masks_agree_with_the_renderer(drawn: dict[str, list[Drawn]]) -> None:
    for d in itertools.chain.from_iterable(drawn.values()):
        found = [f for objects in d.found.values() for f in objects]
        assert len(found) == len(d.scene.objects)
        for mask in d.masks:
            ious = [(mask & f.mask).sum() / (mask | f.mask).sum() for f in found]
            assert max(ious) > 0.9
            rows, cols = np.nonzero(mask)
            box = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
            assert abs(box - found[int(np.argmax(ious))].box).max() <= 1


def test_an_image_is_judged_alone(drawn: dict[str, list[Drawn]]) -> None:
    # the same place in neighbouring images: a component must not run through the batch
    images = np.stack([picture("circle"), picture("square"), picture("circle", color="red")])
    assert detect(images) == [detect(image[None])[0] for image in images]


def test_floats_and_any_memory_layout_give_the_same_detections(
    drawn: dict[str, list[Drawn]],
) -> None:
    images = np.stack([d.image for group in drawn.values() for d in group[:20]])
    expected, before = detect(images), images.copy()
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert detect(planes) == expected
    assert detect(images.astype(np.float32) / 255) == expected
    assert detect(images / 255.0) == expected
    assert np.array_equal(images, before)


def test_masks_come_only_on_demand_and_change_nothing_else() -> None:
    images = picture("ring")[None]
    (plain,), (masked,) = detect(images)[0]["ring"], detect(images, masks=True)[0]["ring"]
    assert plain == masked and plain.mask is None
    assert masked.mask is not None and masked.mask.shape == (SIZE, SIZE)


@pytest.mark.parametrize(("h", "w"), [(48, 100), (90, 48), (64, 150), (200, 61)])
def test_an_object_is_found_in_an_image_of_any_size(h: int, w: int) -> None:
    for shape in SHAPES:
        small = detect(picture(shape)[None])[0][shape][0]
        canvas = flat(BACKGROUND, h, w)
        canvas[h - 48 :, w - 48 :] = picture(shape)
        (found,) = detect(canvas[None], masks=True)
        (moved,) = found.pop(shape)
        assert not found
        x0, y0, x1, y1 = small.box
        assert moved.box == (x0 + w - 48, y0 + h - 48, x1 + w - 48, y1 + h - 48)
        assert (moved.confidence, moved.color) == (small.confidence, "blue")
        assert moved.mask is not None and moved.mask.shape == (h, w)


def test_an_enlarged_scene_is_judged_as_the_scene_itself(drawn: dict[str, list[Drawn]]) -> None:
    for task in TASKS:
        group = drawn[task][:30]
        enlarged = np.stack([d.image for d in group]).repeat(2, 1).repeat(2, 2)
        for d, found in zip(group, detect(enlarged), strict=True):
            if judge(d.found, d.record).correct:
                assert judge(found, d.record).correct


def test_the_detector_knows_the_renderers_shapes_and_colours() -> None:
    assert list(classes()) == list(SHAPES)
    for shape, color in itertools.product(SHAPES, COLORS):
        (found,) = detect(picture(shape, color=color)[None])
        assert list(found) == [shape]
        assert [(f.color, f.confidence) for f in found[shape]] == [(color, 1.0)]


# ---- the detector on everything else


@pytest.mark.parametrize(("h", "w"), [(48, 48), (30, 77), (120, 40), (20, 14), (1, 1)])
def test_nothing_is_found_on_blank_paper_or_in_noise(h: int, w: int) -> None:
    rng = np.random.default_rng(6)
    noise = rng.integers(0, 256, (60, h, w, 3), dtype=np.uint8)
    grain = np.clip(rng.normal(BACKGROUND, 25, (60, h, w, 3)), 0, 255).astype(np.uint8)
    blank = np.stack([flat(BACKGROUND, h, w), flat((255, 255, 255), h, w)])
    for images in (noise, grain, blank, rng.random((60, h, w, 3))):
        assert not any(detect(images))


@pytest.mark.parametrize(("h", "w"), [(48, 48), (40, 52)])
def test_nothing_is_found_in_a_flat_colour(h: int, w: int) -> None:
    colors = [*COLORS.values(), (0, 0, 0), (128, 128, 128), (90, 200, 220)]
    assert not any(detect(np.stack([flat(color, h, w) for color in colors])))


def test_a_coloured_side_of_the_image_is_no_object() -> None:
    for rows in (16, 24, 34, 47):
        image = flat(BACKGROUND)
        image[:rows] = COLORS["red"]
        assert not any(detect(np.stack([image, image.transpose(1, 0, 2)])))


def test_no_images_give_no_detections() -> None:
    assert detect(np.zeros((0, 48, 48, 3), np.uint8)) == []


def test_a_speck_is_no_object() -> None:
    image = flat(BACKGROUND)
    image[10:15, 10:16] = COLORS["red"]  # 30 pixels, but less than 7 high
    image[30:46:2, 30] = COLORS["blue"]
    assert detect(image[None]) == [{}]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["left", "right", "top"])  # the top half of a triangle is one
def test_a_half_erased_shape_has_less_confidence(shape: str, side: str) -> None:
    half = {"left": np.s_[:, :24], "right": np.s_[:, 24:], "top": np.s_[:24]}[side]
    for r in np.linspace(6, 11, 11).tolist():
        image = picture(shape, r=r)
        whole = detect(image[None])[0][shape][0].confidence
        image[half] = BACKGROUND
        left = [f.confidence for found in detect(image[None])[0].values() for f in found]
        # A box twice as high as wide leaves 1.5 - 2 ln 2 = 0.11, too little for the judge.
        assert max(left, default=0.0) <= 0.12 < 0.99 < whole


def test_a_shape_of_two_colours_has_less_confidence() -> None:
    image, (mask,) = render(one("circle", "red"))
    image[:24][mask[:24]] = COLORS["blue"]
    found = [f.confidence for objects in detect(image[None])[0].values() for f in objects]
    # a half of the pixels votes for either colour: (0.5 - 0.4) / 0.4 = 0.25
    assert max(found, default=0.0) <= 0.3
