"""The embedded world: records and their wording, held-out compositions, noisy captions, renderer, detector."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from t2i_credit.errors import PromptError
from t2i_credit.geneval import Detection, judge, relative_position
from t2i_credit.prompts.records import RELATIONS, TASKS, validate_spec
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.detector import classes, detect
from t2i_credit.worlds.shapes.mistakes import CONFUSIONS, shown_record
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

PER_TASK = 300
MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
WITH_HELD_OUT = ("colors", "position", "color_attr")


def clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def record(task: str, *include: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"tag": task, "include": list(include)}
    if task == "counting":
        spec["exclude"] = [clause(include[0]["class"], include[0]["count"] + 1)]
    return {**spec, "prompt": grammar.caption(spec)}


def words(spec: dict[str, Any]) -> tuple[Any, ...]:
    """What the include clauses say, word by word."""
    return tuple(
        word
        for c in spec["include"]
        for word in (c["class"], c["count"], c.get("color"), *c.get("position", ()))
    )


def held_out_triple(a: str, relation: str, b: str) -> bool:
    held = grammar.HELD_OUT_TRIPLES
    return (a, relation, b) in held or (b, MIRROR[relation], a) in held


def names_held_out(spec: dict[str, Any]) -> bool:
    """By the records alone: a held-out pair or triple stands in an include clause."""
    found = spec["include"]
    pair = any((c.get("color"), c["class"]) in grammar.HELD_OUT_PAIRS for c in found)
    return pair or any(
        held_out_triple(c["class"], c["position"][0], found[c["position"][1]]["class"])
        for c in found
        if "position" in c
    )


def shows_held_out_relation(boxes: list[tuple[str, Any]]) -> bool:
    return any(
        held_out_triple(a, relation, b)
        for (a, box_a), (b, box_b) in itertools.permutations(boxes, 2)
        for relation in relative_position(box_a, box_b)
    )


def found_boxes(found: dict[str, list[Detection]]) -> list[tuple[str, Any]]:
    """The objects that GenEval's judge counts."""
    return [(name, d.box) for name, ds in found.items() for d in ds if d.confidence > 0.3]


def one(shape: str, color: str = "blue", x: float = 24.0, y: float = 24.0, r: float = 9.0) -> Scene:
    return Scene((Object(shape, color, x, y, r),))


def picture(shape: str, **where: Any) -> NDArray[np.uint8]:
    return render(one(shape, **where))[0]


def flat(color: tuple[int, int, int], h: int = SIZE, w: int = SIZE) -> NDArray[np.uint8]:
    return np.full((h, w, 3), color, np.uint8)


@dataclass
class Drawn:
    record: dict[str, Any]
    scene: Scene
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    found: dict[str, list[Detection]]


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Drawn]]:
    """PER_TASK scenes of every task, with what the detector finds in them."""
    world = {}
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng([7, number])
        specs = [grammar.sample_record(rng, [task]) for _ in range(PER_TASK)]
        scenes = [grammar.draw(spec, rng) for spec in specs]
        images, masks = zip(*map(render, scenes), strict=True)
        found = detect(np.stack(images), masks=True)
        world[task] = list(map(Drawn, specs, scenes, images, masks, found))
    return world


# ---- records and texts


def test_every_task_has_official_records_over_the_shapes() -> None:
    for task in TASKS:
        for spec in grammar.records(task) + grammar.records(task, "heldout"):
            validate_spec(spec, classes=SHAPES)
            assert spec["tag"] == task
            assert (
                {"tag", "include", "prompt"} <= set(spec) <= {"tag", "include", "exclude", "prompt"}
            )
    assert all(grammar.records(task) for task in TASKS)


def test_there_are_at_least_500_distinct_prompts_and_no_two_records_share_a_text() -> None:
    # 10 templates; 5 shapes; 5*4 ordered pairs; 5*4 counts; 5*6 - 5 colours; 20*4 - 2*8 relations;
    # colour pairs: two of the 25 held-in (colour, shape), other shape and other colour, in order.
    # Every shape has 5 held-in colours, so two shapes share 4 (each lacks another one): 20 * (25 - 4) = 420.
    texts = [prompt.text for prompt in grammar.prompt_set()]
    assert len(texts) == len(set(texts)) == 10 * (5 + 20 + 20 + 25 + 64 + 420)
    held_out = [prompt.text for prompt in grammar.prompt_set("heldout")]
    assert len(held_out) == len(set(held_out)) > 500
    assert not set(texts) & set(held_out)


@pytest.mark.parametrize(
    ("text", "task", "include"),
    [
        ("a photo of a circle", "single_object", [clause("circle")]),
        ("a photo of a ring and a cross", "two_object", [clause("ring"), clause("cross")]),
        ("a photo of one ring", "counting", [clause("ring", 1)]),
        ("a photo of three crosses", "counting", [clause("cross", 3)]),
        ("a photo of four triangles", "counting", [clause("triangle", 4)]),
        ("a photo of an orange ring", "colors", [clause("ring", color="orange")]),
        (
            "a photo of a circle left of a square",  # the target comes first in the record
            "position",
            [clause("square"), clause("circle", position=["left of", 0])],
        ),
        (
            "a photo of an orange cross and a red circle",
            "color_attr",
            [clause("cross", color="orange"), clause("circle", color="red")],
        ),
    ],
)
def test_a_text_has_the_wording_of_geneval(text: str, task: str, include: list[Any]) -> None:
    everything = grammar.records(task) + grammar.records(task, "heldout")
    (spec,) = [r for r in everything if r["prompt"] == text]
    assert spec["include"] == include
    more = [clause(include[0]["class"], include[0]["count"] + 1)] if task == "counting" else None
    assert spec.get("exclude") == more


def test_a_template_replaces_only_the_opening_words() -> None:
    spec = record("colors", clause("cross", color="orange"))
    assert grammar.caption(spec, "a card with") == "a card with an orange cross"


def test_prompts_are_drawn_from_the_seed_and_carry_their_record() -> None:
    first, again = (grammar.prompt_set(per_task=7, seed=3) for _ in range(2))
    assert first == again != grammar.prompt_set(per_task=7, seed=4)
    assert Counter(p.spec["tag"] for p in first if p.spec) == dict.fromkeys(TASKS, 7)
    assert all(p.spec and p.spec["prompt"] == p.text for p in first)


def test_changing_a_record_changes_no_later_one() -> None:
    grammar.records("colors")[0]["include"][0]["color"] = "grey"
    grammar.sample_record(np.random.default_rng(0), ["colors"])["include"][0]["color"] = "grey"
    assert all(r["include"][0]["color"] in COLORS for r in grammar.records("colors"))


def test_records_are_sampled_evenly_over_the_tasks() -> None:
    rng = np.random.default_rng(0)
    tags = Counter(grammar.sample_record(rng)["tag"] for _ in range(6000))
    # 1000 of each; the standard deviation is sqrt(6000 * 1/6 * 5/6) = 29
    assert all(abs(tags[task] - 1000) < 4 * 29 for task in TASKS)


def test_an_unknown_task_or_split_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(PromptError, match=r"'colour' is not a task; allowed: single_object, "):
        grammar.records("colour")
    with pytest.raises(PromptError, match=r"'test' is not a split; allowed: train, heldout"):
        grammar.records("colors", "test")


# ---- held-out compositions


def test_a_held_out_record_names_a_held_out_composition_and_a_held_in_one_does_not() -> None:
    for task in TASKS:
        assert not any(map(names_held_out, grammar.records(task)))
        assert all(map(names_held_out, grammar.records(task, "heldout")))
        assert bool(grammar.records(task, "heldout")) == (task in WITH_HELD_OUT)


def test_no_held_in_text_says_a_held_out_composition() -> None:
    texts = "\n".join(prompt.text for prompt in grammar.prompt_set())
    assert (
        "purple circle" in texts and "a circle left of a square" in texts
    )  # the search would find them
    for color, shape in grammar.HELD_OUT_PAIRS:
        assert f"{color} {shape}" not in texts
    for a, relation, b in grammar.HELD_OUT_TRIPLES:
        assert f"a {a} {relation} a {b}" not in texts
        assert f"a {b} {MIRROR[relation]} a {a}" not in texts


def test_every_word_occurs_in_held_in_records() -> None:
    seen = set(itertools.chain.from_iterable(words(r) for t in TASKS for r in grammar.records(t)))
    assert seen >= {*SHAPES, *COLORS, *RELATIONS, 1, 2, 3, 4}


def test_no_noisy_caption_hides_a_held_out_composition() -> None:
    rng = np.random.default_rng(1)
    for spec in itertools.chain.from_iterable(grammar.records(task) for task in TASKS):
        for _ in range(3):
            assert not names_held_out(shown_record(spec, rng))


def test_no_scene_shows_a_held_out_composition(drawn: dict[str, list[Drawn]]) -> None:
    rng = np.random.default_rng(2)
    noisy = [grammar.draw(shown_record(grammar.sample_record(rng), rng), rng) for _ in range(3000)]
    clean = [d.scene for group in drawn.values() for d in group]
    for scene in noisy + clean:
        assert not {(o.color, o.shape) for o in scene.objects} & grammar.HELD_OUT_PAIRS
        assert not shows_held_out_relation([(o.shape, o.box) for o in scene.objects])


def test_the_judge_sees_no_held_out_relation(drawn: dict[str, list[Drawn]]) -> None:
    # The detector's boxes are up to a pixel tighter than the objects' own squares: `draw` keeps that
    # margin from every held-out relation.
    for d in (d for group in drawn.values() for d in group):
        assert not shows_held_out_relation(found_boxes(d.found))


def test_the_judge_sees_no_held_out_pair(drawn: dict[str, list[Drawn]]) -> None:
    for task in TASKS:
        for d in drawn[task]:
            pairs = {(o.color, name) for name, objects in d.found.items() for o in objects}
            assert not pairs & grammar.HELD_OUT_PAIRS


def test_a_held_out_record_is_never_drawn() -> None:
    for task in WITH_HELD_OUT:
        for spec in grammar.records(task, "heldout")[:: len(grammar.TEMPLATES)]:
            with pytest.raises(PromptError, match=re.escape(repr(spec["prompt"])) + " is held out"):
                grammar.draw(spec, np.random.default_rng(0))


def test_the_mirror_image_of_a_held_out_triple_is_held_out() -> None:
    mirrored = record("position", clause("circle"), clause("square", position=["below", 0]))
    assert ("circle", "above", "square") in grammar.HELD_OUT_TRIPLES
    assert grammar.is_held_out(mirrored)
    with pytest.raises(PromptError):
        grammar.draw(mirrored, np.random.default_rng(0))


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


# ---- noisy captions


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # One word, wrong at 0.1; then 0.8 of the time the usual confusion and 0.2 / 4 of it any
        # of the 4 other shapes, the usual one included.
        (
            record("single_object", clause("circle")),
            {("circle",): 0.9, ("ring",): 0.1 * 0.85, ("square",): 0.1 * 0.05},
        ),
        # Wrong at 0.6: the wrong picture is the more frequent one.
        (record("single_object", clause("ring")), {("ring",): 0.4, ("circle",): 0.6 * 0.85}),
        # The count is wrong at 0.6, the class at 0.1; of two wrong words one is kept, so
        # count 0.6 * 0.9 + 0.6 * 0.1 / 2 = 0.57 and class 0.1 * 0.4 + 0.03 = 0.07.
        # "four" is 0.8 + 0.2 / 3 of the wrong counts.
        (
            record("counting", clause("circle", 3)),
            {
                ("circle", 3): 1 - 0.57 - 0.07,
                ("circle", 4): 0.57 * (0.8 + 0.2 / 3),
                ("circle", 1): 0.57 * 0.2 / 3,
                ("ring", 3): 0.07 * 0.85,
            },
        ),
        # As above with colour 0.57 and class 0.07. Of the 5 other colours green (0.04) is held
        # out for circles, of the 4 other shapes ring (0.85) for orange: the caption stays true.
        (
            record("colors", clause("circle", color="orange")),
            {
                ("circle", "red"): 0.57 * 0.84,
                ("circle", "blue"): 0.57 * 0.04,
                ("ring", "orange"): 0.0,
                ("circle", "orange"): 1 - 0.57 * 0.96 - 0.07 * 0.15,
            },
        ),
        # "red" becomes "orange" at 0.1, but orange rings are held out (0.84 of the changes).
        # "ring" becomes "circle" at 0.6; red squares (0.05) are held out. One of two wrong words:
        # colour 0.1 * 0.4 + 0.03 = 0.07, class 0.57.
        (
            record("colors", clause("ring", color="red")),
            {
                ("ring", "orange"): 0.0,
                ("circle", "red"): 0.57 * 0.85,
                ("ring", "red"): 1 - 0.07 * 0.16 - 0.57 * 0.95,
            },
        ),
        # "circle above triangle": "above" is wrong at 0.6, each shape at 0.1. Relation alone: 0.6 * 0.9^2, with one
        # other wrong: 2 * 0.6 * 0.1 * 0.9 / 2, with both: 0.6 * 0.1^2 / 3; in all 0.542, of which below is 0.8 + 0.2 / 3.
        # "circle right of triangle" (0.2 / 3) is held out as the mirror of triangle left of circle.
        (
            record("position", clause("triangle"), clause("circle", position=["above", 0])),
            {
                ("triangle", "circle", "below"): 0.542 * (0.8 + 0.2 / 3),
                ("triangle", "circle", "left of"): 0.542 * 0.2 / 3,
                ("triangle", "circle", "right of"): 0.0,
            },
        ),
    ],
    ids=lambda value: value["prompt"] if isinstance(value, dict) and "prompt" in value else "",
)
def test_a_word_is_wrong_as_often_as_the_table_says(spec: Any, expected: dict[Any, float]) -> None:
    rng = np.random.default_rng(3)
    draws = 10_000
    said = Counter(
        tuple(w for w in words(shown_record(spec, rng)) if w in names_and_counts(spec))
        for _ in range(draws)
    )
    for shown, share in expected.items():
        # 4 standard deviations; never for an impossible picture
        assert abs(said[shown] / draws - share) <= 4 * (share * (1 - share) / draws) ** 0.5, shown


def names_and_counts(spec: dict[str, Any]) -> set[Any]:
    """The words of the table above: every name, and counts where the task is about them."""
    return {*SHAPES, *COLORS, *RELATIONS} | ({1, 2, 3, 4} if spec["tag"] == "counting" else set())


def test_a_noisy_caption_is_wrong_in_exactly_one_word() -> None:
    rng = np.random.default_rng(4)
    changes = Counter()
    for _ in range(10_000):
        spec = grammar.sample_record(rng)
        before = copy.deepcopy(spec)
        shown = shown_record(spec, rng)
        assert spec == before
        assert (shown["tag"], shown["prompt"]) == (spec["tag"], spec["prompt"])
        changes[sum(a != b for a, b in zip(words(spec), words(shown), strict=True))] += 1
        validate_spec(shown, classes=SHAPES)
        assert len({c["class"] for c in shown["include"]}) == len(shown["include"])
        if shown["tag"] == "counting":
            (c,) = shown["include"]
            assert shown["exclude"] == [clause(c["class"], c["count"] + 1)]
    assert set(changes) == {0, 1}


def test_every_word_has_a_usual_confusion_of_its_own_kind() -> None:
    kinds = [set(SHAPES), set(COLORS), set(RELATIONS), set(grammar.NUMBERS)]
    assert set(CONFUSIONS) == set.union(*kinds)
    for word, (usual, share) in CONFUSIONS.items():
        assert usual != word and 0 < share < 1
        assert any({word, usual} <= kind for kind in kinds)


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
