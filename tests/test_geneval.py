"""The GenEval verdict: official rules and boundaries, the partial score, malformed records."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2i_credit.errors import PromptError
from t2i_credit.geneval import Detection, judge, relative_position
from t2i_credit.prompts.records import RELATIONS, TASKS, validate_spec

# y points down. All boxes are 10 x 10, so two of them reduce an offset by 0.1 * (10 + 10) = 2.
CENTRE, LEFT, RIGHT = (100, 40, 110, 50), (0, 40, 10, 50), (200, 40, 210, 50)
ABOVE, BELOW = (100, 0, 110, 10), (100, 80, 110, 90)


def seen(box: Any = CENTRE, confidence: float = 0.95, color: str | None = None) -> Detection:
    return Detection(box, confidence, color)


def clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def record(*include: Any, exclude: Any = (), tag: str = "position") -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "exclude": list(exclude), "prompt": "a photo"}


DOG = record(clause("dog"))
DOG_RIGHT_OF_CUP = record(clause("cup"), clause("dog", position=["right of", 0]))


# ---- which detections count


def test_an_object_that_is_there_makes_a_correct_image_without_a_reason() -> None:
    verdict = judge({"dog": [seen()], "cat": [seen()]}, DOG)
    assert (verdict.correct, verdict.score, verdict.reason) == (True, 1.0, "")


@pytest.mark.parametrize("detections", [{}, {"dog": []}, {"cat": [seen()]}])
def test_an_object_that_is_missing_makes_an_incorrect_image(detections: dict[str, Any]) -> None:
    verdict = judge(detections, DOG)
    assert (verdict.correct, verdict.score) == (False, 0.0)
    assert verdict.reason == "expected at least 1 of dog, found 0"


@pytest.mark.parametrize(
    ("tag", "confidence", "kept"),
    [
        ("colors", 0.3, False),
        ("colors", float(np.float32(0.3)), False),  # 0.30000001192...: still the threshold itself
        ("colors", float(np.nextafter(np.float32(0.3), np.float32(1))), True),
        ("colors", 0.9, True),
        ("counting", 0.31, False),
        ("counting", 0.9, False),
        ("counting", float(np.float32(0.9)), False),
        ("counting", float(np.nextafter(np.float32(0.9), np.float32(1))), True),
    ],
)
def test_a_confidence_must_lie_strictly_above_the_threshold_of_its_task(
    tag: str, confidence: float, kept: bool
) -> None:
    spec = record(clause("dog"), tag=tag)
    assert judge({"dog": [seen(confidence=confidence)]}, spec).correct is kept


def test_thresholds_can_be_set() -> None:
    dogs = {"dog": [seen(confidence=0.5)]}
    assert not judge(dogs, DOG, threshold=0.5).correct
    assert judge(dogs, record(clause("dog"), tag="counting"), counting_threshold=0.4).correct


def test_only_the_most_confident_objects_are_considered_whatever_their_order() -> None:
    spec = record(clause("dog", color="red"))
    red, blue = seen(confidence=0.8, color="red"), seen(confidence=0.7, color="blue")
    assert judge({"dog": [blue, red]}, spec).correct
    assert judge({"dog": [red, blue]}, spec).correct
    sure_blue = seen(confidence=0.81, color="blue")
    assert not judge({"dog": [red, sure_blue]}, spec).correct


def test_of_two_equal_confidences_the_later_comes_first() -> None:
    spec = record(clause("dog", color="red"))
    assert judge({"dog": [seen(color="blue"), seen(color="red")]}, spec).correct
    assert not judge({"dog": [seen(color="red"), seen(color="blue")]}, spec).correct


def test_at_most_sixteen_objects_of_a_class_count() -> None:
    crowd = {"dog": [seen()] * 20}
    assert judge(crowd, record(clause("dog", 16))).correct
    assert not judge(crowd, record(clause("dog", 17))).correct
    assert judge(crowd, record(exclude=[clause("dog", 17)])).correct
    assert not judge(crowd, record(exclude=[clause("dog", 16)])).correct
    assert judge(crowd, record(exclude=[clause("dog", 3)]), max_objects=2).correct


# ---- overlap

# Last row and column are counted in: A and B cover 10 x 10 pixels each and share columns 5..9, so
# IoU(A, B) = 50 / 150 = 1/3 (without the + 1 it would be 36 / 126 = 0.286). B and C alike; A and C
# share nothing: 9 - 10 + 1 = 0 columns.
A, B, C = (0, 0, 9, 9), (5, 0, 14, 9), (10, 0, 19, 9)


@pytest.mark.parametrize(
    ("boxes", "nms_threshold", "left"),
    [
        ([A, A], None, 2),
        ([A, A], 1.0, 2),
        ([A, A], 0.99, 1),
        ([A, B], 0.30, 1),
        ([A, B], 0.34, 2),
        ([A, (0, 0, 9, 4)], 0.5, 1),  # 50 / 100: reaching the threshold is enough to be dropped
        ([A, (0, 0, 9, 4)], 0.51, 2),
        ([A, C], 0.01, 2),
        ([A, (12, 12, 21, 21)], 0.01, 2),  # minus 2 columns times minus 2 rows share nothing
        ([A, B, C], 0.30, 2),  # B is dropped by A and so cannot drop C
        ([B, A, C], 0.30, 1),
    ],
)
def test_an_object_is_dropped_if_it_overlaps_a_kept_one(
    boxes: list[Any], nms_threshold: float | None, left: int
) -> None:
    dogs = {"dog": [seen(box, 0.9 - 0.1 * rank) for rank, box in enumerate(boxes)]}
    at_least, more = record(clause("dog", left)), record(clause("dog", left + 1))
    assert judge(dogs, at_least, nms_threshold=nms_threshold).correct
    assert not judge(dogs, more, nms_threshold=nms_threshold).correct


def test_the_limit_of_sixteen_comes_before_the_overlap_test() -> None:
    dogs = {"dog": [seen(A, 0.9)] * 16 + [seen(C, 0.8)]}
    assert not judge(dogs, record(clause("dog", 2)), nms_threshold=0.5).correct


# ---- colour


def test_each_of_the_counted_objects_must_have_the_colour() -> None:
    spec = record(clause("dog", 2, color="red"))
    dogs = [seen(confidence=c, color=k) for c, k in [(0.9, "red"), (0.8, "red"), (0.7, "blue")]]
    assert judge({"dog": dogs}, spec).correct
    verdict = judge({"dog": [*dogs[::2], seen(confidence=0.6, color="red")]}, spec)
    assert not verdict.correct
    assert verdict.reason == "expected 2 red dog, found 1 (by confidence: red, blue)"


def test_an_object_of_unknown_colour_fails_a_colour_check_and_says_so() -> None:
    verdict = judge({"dog": [seen()]}, record(clause("dog", color="red")))
    assert (verdict.correct, verdict.score) == (False, 0.5)  # count yes, colour no
    assert "no colour" in verdict.reason


# ---- position


@pytest.mark.parametrize(
    ("box", "relation"),
    [(LEFT, "left of"), (RIGHT, "right of"), (ABOVE, "above"), (BELOW, "below")],
)
def test_each_side_of_the_target_has_its_name(box: Any, relation: str) -> None:
    assert relative_position(box, CENTRE) == (relation,)
    for asked in RELATIONS:
        spec = record(clause("cup"), clause("dog", position=[asked, 0]))
        verdict = judge({"cup": [seen(CENTRE)], "dog": [seen(box)]}, spec)
        assert verdict.correct is (asked == relation)


@pytest.mark.parametrize(
    ("box_a", "box_b", "relations"),
    [
        # Points, offset (3, 4), norm 5: (0.6, 0.8), so both hold.
        ((3, 4, 3, 4), (0, 0, 0, 0), ("right of", "below")),
        ((-3, -4, -3, -4), (0, 0, 0, 0), ("left of", "above")),
        # Offset (6, 8), widths 10 and 10, no height: (6 - 2, 8) / 10 = (0.4, 0.8), not / sqrt(80).
        ((1, 8, 11, 8), (-5, 0, 5, 0), ("below",)),
        # Heights 10 and 10 instead: (6, 8 - 2) / 10 = (0.6, 0.6).
        ((6, 3, 6, 13), (0, -5, 0, 5), ("right of", "below")),
        # Offset (10, 0), widths 25 and 25: (10 - 5) / 10 = 0.5, and that is not beyond 0.5.
        ((-2.5, 0, 22.5, 1), (-12.5, 0, 12.5, 1), ()),
        # Offset (11, 0): (11 - 5) / 11 = 0.545.
        ((-1.5, 0, 23.5, 1), (-12.5, 0, 12.5, 1), ("right of",)),
        # Offset (2, 0), widths 10 and 10: reduced to 0.
        ((2, 0, 12, 10), (0, 0, 10, 10), ()),
        (CENTRE, CENTRE, ()),
        # Corners given the other way round have the same centre and size.
        ((22.5, 1, -2.5, 0), (-12.5, 0, 12.5, 1), ()),
    ],
)
def test_relations_come_from_the_reduced_offset_over_the_raw_norm(
    box_a: Any, box_b: Any, relations: tuple[str, ...]
) -> None:
    assert relative_position(box_a, box_b) == relations


def test_the_position_threshold_decides_how_clear_a_placement_must_be() -> None:
    # Offset (15, 0), sizes 10 and 10: 13 / 15 with 0.1, 5 / 15 with 0.5.
    pair = {"dog": [seen((15, 0, 25, 10))], "cup": [seen((0, 0, 10, 10))]}
    assert judge(pair, DOG_RIGHT_OF_CUP).correct
    assert not judge(pair, DOG_RIGHT_OF_CUP, position_threshold=0.5).correct


def test_a_failed_relation_names_what_was_found_instead() -> None:
    verdict = judge({"cup": [seen(CENTRE)], "dog": [seen(LEFT)]}, DOG_RIGHT_OF_CUP)
    assert verdict.reason == "expected dog right of target 0, found left of"
    verdict = judge({"cup": [seen(CENTRE)], "dog": [seen(CENTRE)]}, DOG_RIGHT_OF_CUP)
    assert verdict.reason == "expected dog right of target 0, found no clear relation"


def test_a_relation_must_hold_for_every_pair_of_object_and_target() -> None:
    two_dogs = record(clause("cup"), clause("dog", 2, position=["right of", 0]))
    two_cups = record(clause("cup", 2), clause("dog", position=["right of", 0]))
    far = (300, 40, 310, 50)
    assert judge({"cup": [seen(CENTRE)], "dog": [seen(RIGHT), seen(far)]}, two_dogs).correct
    for dogs in ([seen(RIGHT), seen(LEFT)], [seen(LEFT), seen(RIGHT)]):
        assert not judge({"cup": [seen(CENTRE)], "dog": dogs}, two_dogs).correct
    assert judge({"cup": [seen(CENTRE), seen(LEFT)], "dog": [seen(RIGHT)]}, two_cups).correct
    for cups in ([seen(CENTRE), seen(far)], [seen(far), seen(CENTRE)]):
        assert not judge({"cup": cups, "dog": [seen(RIGHT)]}, two_cups).correct


def test_objects_beyond_the_count_take_no_part_in_a_relation() -> None:
    dogs = [seen(RIGHT, 0.9), seen(LEFT, 0.8)]
    cups = [seen(CENTRE, 0.9), seen((300, 40, 310, 50), 0.8)]
    assert judge({"cup": cups, "dog": dogs}, DOG_RIGHT_OF_CUP).correct
    assert not judge({"cup": cups, "dog": dogs[1:]}, DOG_RIGHT_OF_CUP).correct


def test_a_target_is_found_by_its_index_among_the_include_clauses() -> None:
    spec = record(clause("cup"), clause("cat"), clause("dog", position=["left of", 1]))
    scene = {"cup": [seen(LEFT)], "cat": [seen(RIGHT)], "dog": [seen(CENTRE)]}
    assert judge(scene, spec).correct  # left of the cat, although right of the cup


@pytest.mark.parametrize("cups", [[], [seen(CENTRE, color="blue")]])
def test_a_clause_that_failed_is_no_target(cups: list[Detection]) -> None:
    spec = record(clause("cup", color="red"), clause("dog", position=["right of", 0]))
    verdict = judge({"cup": cups, "dog": [seen(RIGHT)]}, spec)
    assert not verdict.correct
    # Of the four checks the dog's count passes, and the cup's count where there is a cup.
    assert verdict.score == (1 + len(cups)) / 4
    assert verdict.reason.splitlines()[1:] == [
        "expected dog right of target 0, but clause 0 failed: no target"
    ]


# ---- exclude


@pytest.mark.parametrize(("found", "correct"), [(1, False), (2, True), (3, False), (4, False)])
def test_a_counting_record_wants_the_exact_number(found: int, correct: bool) -> None:
    spec = record(clause("dog", 2), exclude=[clause("dog", 3)], tag="counting")
    verdict = judge({"dog": [seen()] * found}, spec)
    assert verdict.correct is correct
    assert verdict.score == (1.0 if correct else 0.5)  # one of two checks fails on either side
    if found == 4:
        assert verdict.reason == "expected fewer than 3 of dog, found 4"


def test_unsure_objects_are_not_held_against_a_counting_image() -> None:
    spec = record(clause("dog", 2), exclude=[clause("dog", 3)], tag="counting")
    assert judge({"dog": [seen(confidence=0.91)] * 2 + [seen(confidence=0.9)]}, spec).correct


# ---- partial score


def test_a_failed_position_check_counts_once_and_as_failed() -> None:
    # cup count, dog count, position: 2 of 3. Appending 0 and then 1 would make it 3 of 4.
    verdict = judge({"cup": [seen(CENTRE)], "dog": [seen(LEFT)]}, DOG_RIGHT_OF_CUP)
    assert verdict.score == 2 / 3


def test_a_crowd_cannot_push_the_score_below_zero() -> None:
    # 1 - |n - found| / n would be 1 - 9 / 1 = -8 here; ours is 1 (enough) of 2 (not too many).
    spec = record(clause("dog", 1), exclude=[clause("dog", 2)], tag="counting")
    assert judge({"dog": [seen()] * 10}, spec).score == 0.5


def test_checks_that_are_never_reached_count_as_failed() -> None:
    spec = record(clause("cup"), clause("dog", color="red", position=["right of", 0]))
    cup = {"cup": [seen(CENTRE)]}
    assert judge(cup, spec).score == 1 / 4  # no dog: its count, colour and position fail
    blue_dog = {"dog": [seen(RIGHT, color="blue")]}  # on the right side, but in vain
    assert judge(cup | blue_dog, spec).score == 2 / 4
    assert judge(cup | {"dog": [seen(LEFT, color="red")]}, spec).score == 3 / 4
    assert judge(cup | {"dog": [seen(RIGHT, color="red")]}, spec).score == 1.0


def test_a_score_of_one_means_correct_and_nothing_else_does() -> None:
    rng = random.Random(0)
    verdicts = Counter[bool]()
    for _ in range(3000):
        scene = {
            name: [
                seen(rng.choice((LEFT, RIGHT, CENTRE, ABOVE, BELOW)), rng.random(), color)
                for color in rng.choices(("red", "blue", None), weights=(4, 1, 1), k=6)
            ]
            for name in ("cup", "dog")
        }
        include = []
        for index in range(rng.randint(1, 2)):
            more: dict[str, Any] = {"color": "red"} if rng.random() < 0.5 else {}
            if index and rng.random() < 0.7:
                more["position"] = [rng.choice(RELATIONS), 0]
            include.append(clause(rng.choice(("cup", "dog")), rng.choice((1, 1, 2)), **more))
        exclude = [clause("cup", rng.randint(2, 6))] if rng.random() < 0.5 else []
        verdict = judge(scene, record(*include, exclude=exclude))
        assert 0.0 <= verdict.score <= 1.0
        assert verdict.correct is (verdict.score == 1.0) is (verdict.reason == "")
        verdicts[verdict.correct] += 1
    assert min(verdicts[True], verdicts[False]) > 300, verdicts


# ---- inputs


@pytest.mark.parametrize("box", [list(RIGHT), np.array(RIGHT), torch.tensor(RIGHT).float()])
def test_a_box_may_be_any_sequence(box: Any) -> None:
    detection = Detection(box, torch.tensor(0.5).item(), mask=np.ones((60, 220), dtype=bool))
    assert detection == Detection(RIGHT, 0.5)
    assert detection.box == (200.0, 40.0, 210.0, 50.0)
    assert judge({"cup": [seen(CENTRE)], "dog": [detection]}, DOG_RIGHT_OF_CUP).correct


def test_judging_leaves_its_inputs_alone() -> None:
    scene = {"dog": [seen(A, 0.4), seen(B, 0.9), seen(C, 0.1)]}
    before = {name: list(found) for name, found in scene.items()}
    judge(scene, record(clause("dog"), clause("cup")), nms_threshold=0.2)
    assert scene == before


# ---- malformed records


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ([], "a record must be an object"),
        ({"include": [clause("dog")]}, "key 'tag' is missing"),
        ({"tag": "colors"}, "key 'include' is missing"),
        ({"tag": "", "include": [clause("dog")]}, "tag must be a non-empty text"),
        ({"tag": "overall", "include": [clause("dog")]}, "tag 'overall' is taken"),
        ({"tag": "colors", "include": [clause("dog")], "prompt": 3}, "prompt must be a non-empty"),
        ({"tag": "colors", "include": []}, "include must hold at least one clause"),
        ({"tag": "colors", "include": "dog"}, "include must be a list of clauses, got 'dog'"),
        ({"tag": "colors", "include": [clause("dog")], "exclude": {}}, "exclude must be a list"),
        (record("dog"), "include[0] must be an object with class and count, got 'dog'"),
        (record({"class": "dog"}), "include[0]: key 'count' is missing"),
        (record({"count": 1}), "include[0]: key 'class' is missing"),
        (record(clause("dog", colour="red")), "unknown key 'colour'; allowed are class, count, "),
        (record(clause("dog", colour="red")), "did you mean 'color'?"),
        (record(exclude=[clause("dog", color="red")]), "exclude[0]: unknown key 'color'"),
        (record(clause("")), "include[0].class must be a non-empty text, got ''"),
        (record(clause("dog", color=None)), "include[0].color must be a non-empty text, got None"),
        (record(clause("dog", 0)), "include[0].count must be an integer of at least 1, got 0"),
        (record(clause("dog", True)), "include[0].count must be an integer"),
        (record(clause("dog", 1.0)), "include[0].count must be an integer"),  # type: ignore[arg-type]
        (record(exclude=[clause("dog", -1)]), "exclude[0].count must be an integer"),
        (record(clause("cup"), clause("dog", position="left of")), "must be [relation, index"),
        (record(clause("cup"), clause("dog", position=["left of"])), "must be [relation, index"),
        (record(clause("cup"), clause("dog", position=["left", 0])), "did you mean 'left of'?"),
        (record(clause("cup"), clause("dog", position=["above", 1])), "an earlier include clause"),
        (record(clause("cup"), clause("dog", position=["above", 2])), "target 2 is not allowed"),
        (record(clause("cup"), clause("dog", position=["above", -1])), "target -1 is not allowed"),
        (record(clause("cup"), clause("dog", position=["above", "0"])), "target '0' is not"),
        (record(clause("dog", position=["above", 0])), "none: it is first"),
        (record(clause("dgo")), "unknown class 'dgo' (2 are known); did you mean 'dog'?"),
        (record(exclude=[clause("zeppelin")]), "exclude[0].class: unknown class 'zeppelin'"),
    ],
)
def test_a_malformed_record_is_refused_in_one_line_that_names_it(spec: Any, said: str) -> None:
    with pytest.raises(PromptError) as caught:
        validate_spec(spec, classes=("cup", "dog"), where="mine.jsonl line 7")
    message = str(caught.value)
    assert message.startswith("mine.jsonl line 7: ")
    assert said in message
    assert "\n" not in message


def test_a_record_may_have_its_own_tag_and_further_keys() -> None:
    validate_spec({"tag": "mine", "include": (clause("blob"),), "held_out": True})
    validate_spec(record(exclude=[clause("dog")]), classes={"dog"})


def test_judging_refuses_a_malformed_record() -> None:
    with pytest.raises(PromptError, match="key 'tag' is missing"):
        judge({}, {"include": [clause("dog")]})


# ---- summary


# ---- the official prompt list


@pytest.fixture(scope="module")
def official_records() -> list[dict[str, Any]]:
    path = os.environ.get("GENEVAL_METADATA")
    if not path:
        pytest.skip("GENEVAL_METADATA is not set: it names the official evaluation_metadata.jsonl")
    if not Path(path).is_file():
        pytest.skip(f"GENEVAL_METADATA names no file: {path}")
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line]


def perfect_scene(spec: dict[str, Any]) -> dict[str, list[Detection]]:
    """As many objects as each clause asks for, at the centre or on the asked side of it."""
    sides = {"left of": LEFT, "right of": RIGHT, "above": ABOVE, "below": BELOW}
    scene: dict[str, list[Detection]] = {}
    for wanted in spec["include"]:
        box = sides[wanted["position"][0]] if "position" in wanted else CENTRE
        found = [seen(box, 0.95, wanted.get("color"))] * wanted["count"]
        scene.setdefault(wanted["class"], []).extend(found)
    return scene


def test_all_official_records_are_well_formed(official_records: list[dict[str, Any]]) -> None:
    for number, spec in enumerate(official_records, start=1):
        validate_spec(spec, where=f"line {number}")
    counts = Counter(spec["tag"] for spec in official_records)
    assert [counts[task] for task in TASKS] == [80, 99, 80, 94, 100, 100]
    assert len(official_records) == 553


def test_a_perfect_image_of_every_official_record_is_correct_and_a_poorer_one_is_not(
    official_records: list[dict[str, Any]],
) -> None:
    for spec in official_records:
        scene = perfect_scene(spec)
        verdict = judge(scene, spec)
        assert (verdict.correct, verdict.score, verdict.reason) == (True, 1.0, ""), spec
        for name in scene:
            poorer = judge({**scene, name: scene[name][1:]}, spec)
            assert not poorer.correct and poorer.score < 1.0, spec
