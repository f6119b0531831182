"""Scenes and the renderer: what is shown, where, and in which pixels."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from drawn_shapes import Drawn, one
from numpy.typing import NDArray

from t2i_credit.geneval import relative_position
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.scene import (
    BACKGROUND,
    COLORS,
    SHAPES,
    SIZE,
    Object,
    Scene,
    coverage,
    render,
)

# ---- scenes


def test_a_scene_shows_what_its_record_says_and_nothing_else(drawn: dict[str, list[Drawn]]) -> None:
    for d in itertools.chain.from_iterable(drawn.values()):
        include = d.record["include"]
        wanted = Counter({c["class"]: c["count"] for c in include})
        assert Counter(o.shape for o in d.scene.objects) == wanted
        for c in include:
            same = [o for o in d.scene.objects if o.shape == c["class"]]
            assert all(o.color == c.get("color", o.color) for o in same)
            if "position" in c:
                relation, target = c["position"]
                (other,) = [o for o in d.scene.objects if o.shape == include[target]["class"]]
                assert relative_position(same[0].box, other.box) == (relation,)


def test_objects_lie_inside_the_image_with_three_pixels_between_their_boxes(
    drawn: dict[str, list[Drawn]],
) -> None:
    for d in itertools.chain.from_iterable(drawn.values()):
        for o in d.scene.objects:
            assert min(o.box) >= 1 - 1e-9 and max(o.box) <= SIZE - 1 + 1e-9
        for a, b in itertools.combinations(d.scene.objects, 2):
            apart = [max(a.box[i] - b.box[i + 2], b.box[i] - a.box[i + 2]) for i in (0, 1)]
            assert max(apart) >= 3 - 1e-9


def test_the_seed_fixes_records_scenes_and_pixels() -> None:
    def world(seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        scenes = [grammar.draw(grammar.sample_record(rng), rng) for _ in range(50)]
        return [(scene, render(scene)[0].tobytes()) for scene in scenes]

    assert world(5) == world(5) != world(6)


# ---- the renderer


def inside(shape: str, x: NDArray[Any], y: NDArray[Any], r: float) -> NDArray[np.bool_]:
    """The shapes again, as plain geometry about the origin, y down."""
    if shape == "circle":
        return x**2 + y**2 <= r**2
    if shape == "ring":
        return (x**2 + y**2 <= r**2) & (x**2 + y**2 >= (0.48 * r) ** 2)
    if shape == "square":
        return (abs(x) <= 0.88 * r) & (abs(y) <= 0.88 * r)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.36 * r) & (np.maximum(abs(x), abs(y)) <= r)
    return (abs(y) <= 0.95 * r) & (2 * abs(x) <= y + 0.95 * r)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_holds_the_pixels_that_are_at_least_half_covered(shape: str) -> None:
    rng = np.random.default_rng(5)
    centres, fine = np.arange(SIZE) + 0.5, (np.arange(SIZE * 8) + 0.5) / 8
    for _ in range(20):
        r = rng.uniform(6, 11)
        x, y = rng.uniform(12, 36, size=2)
        obj = Object(shape, "green", x, y, r)
        (mask,) = render(Scene((obj,)))[1]
        assert np.array_equal(mask, coverage(obj) >= 0.5)
        # An edge that runs straight through a pixel covers half of it when it meets the centre ...
        assert np.array_equal(mask, inside(shape, centres[None, :] - x, centres[:, None] - y, r))
        points = inside(shape, fine[None, :] - x, fine[:, None] - y, r)
        area = points.reshape(SIZE, 8, SIZE, 8).mean((1, 3))
        # ... but a right angle there leaves 1/4 or 3/4, and the tip of the triangle 1/8. Round
        # shapes have no corners, and a curve takes little away: at most 0.06 for these radii.
        slack = 0.06 if shape in ("circle", "ring") else 3 / 8
        assert area[mask].min() >= 0.5 - slack and area[~mask].max() <= 0.5 + slack


@pytest.mark.parametrize(("half", "side"), [(8.0, 16), (8.4, 16), (8.6, 18)])
def test_a_square_of_known_size_has_exactly_its_pixels(half: float, side: int) -> None:
    # Centre (20, 30), half side 0.88 * r = 8: columns 12 to 27, rows 22 to 37. The pixels around
    # them are covered by 0.4 of a pixel, which is too little, or by 0.6.
    image, (mask,) = render(one("square", "purple", x=20, y=30, r=half / 0.88))
    expected = np.zeros((SIZE, SIZE), bool)
    expected[30 - side // 2 : 30 + side // 2, 20 - side // 2 : 20 + side // 2] = True
    assert np.array_equal(mask, expected)
    assert (image[23:37, 13:27] == COLORS["purple"]).all()
    far = ~expected
    far[20:40, 10:30] = False
    assert (image[far] == BACKGROUND).all()


def test_the_image_shows_the_masks_in_their_colours(drawn: dict[str, list[Drawn]]) -> None:
    for d in itertools.chain.from_iterable(drawn.values()):
        assert (d.image.shape, d.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert d.masks.shape == (len(d.scene.objects), SIZE, SIZE)
        assert d.masks.sum(0).max() == 1  # disjoint
        nearest = np.zeros(
            (SIZE, SIZE), bool
        )  # pixels that are nearer to their colour than to paper
        for obj, mask in zip(d.scene.objects, d.masks, strict=True):
            color, paper = np.array(COLORS[obj.color]), np.array(BACKGROUND)
            share = (d.image - paper) @ (color - paper) / ((color - paper) @ (color - paper))
            assert share[mask].min() > 0.49  # rounding to whole grey levels
            nearest |= (share > 0.51) & (coverage(obj) > 0)
        assert not (nearest & ~d.masks.any(0)).any()
