"""The GenEval verdict: official rules and boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geneval_clauses import (
    ABOVE,
    BELOW,
    CENTRE,
    DOG_RIGHT_OF_CUP,
    LEFT,
    RIGHT,
    A,
    B,
    C,
    clause,
    record,
    seen,
)

from t2i_credit.geneval import Detection, judge, pixels_of, rated, relative_position
from t2i_credit.prompts.records import RELATIONS

DOG = record(clause("dog"))


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
    assert verdict.reason == "expected dog right of cup, found left of"
    verdict = judge({"cup": [seen(CENTRE)], "dog": [seen(CENTRE)]}, DOG_RIGHT_OF_CUP)
    assert verdict.reason == "expected dog right of cup, found no clear relation"


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
        "expected dog right of cup, which is not there as the prompt asks for it"
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


# ---- which objects are right


def marks(detections: Any, spec: Any, **keeping: Any) -> list[tuple[Any, bool]]:
    """(box, right) of the objects that the verdict looks at, in the order of their boxes."""
    return sorted((one.box, right) for one, right in rated(detections, spec, **keeping))


def test_right_objects_stay_right_beside_wrong_and_missing_ones() -> None:
    spec = record(clause("dog", color="red"), clause("cat"), clause("cup"))
    found = {"dog": [seen(LEFT, color="blue")], "cat": [seen(CENTRE)], "owl": [seen(RIGHT)]}
    assert marks(found, spec) == [(LEFT, False), (CENTRE, True)]  # no cup; nobody asked for an owl
    assert marks({"dog": [seen(LEFT, color="red")]}, spec) == [(LEFT, True)]
    assert marks({"dog": [seen(LEFT)]}, spec) == [(LEFT, True)]  # nobody named its colour
    assert marks({}, spec) == []


def test_the_misplaced_object_is_that_of_the_clause_that_fails() -> None:
    for place, right in ((RIGHT, True), (LEFT, False), (ABOVE, False)):
        found = {"cup": [seen(CENTRE)], "dog": [seen(place)]}
        assert dict(marks(found, DOG_RIGHT_OF_CUP)) == {CENTRE: True, place: right}
    # without a cup there is nothing to be right of
    assert marks({"dog": [seen(LEFT)]}, DOG_RIGHT_OF_CUP) == [(LEFT, True)]


def test_objects_beyond_those_asked_for_are_wrong_where_a_clause_excludes_them() -> None:
    three = {"dog": [seen(LEFT, 0.99), seen(CENTRE, 0.97), seen(RIGHT, 0.95)]}
    two = clause("dog", 2)
    counted = record(two, exclude=[clause("dog", 3)], tag="counting")
    assert marks(three, counted) == [(LEFT, True), (CENTRE, True), (RIGHT, False)]
    assert marks(three, record(two)) == [(LEFT, True), (CENTRE, True)]  # the third is not looked at
    assert marks(three, counted, counting_threshold=0.98) == [(LEFT, True)]


def test_an_image_is_correct_only_if_no_object_is_wrong() -> None:
    spec = record(clause("dog", 2, color="red"), exclude=[clause("dog", 3)], tag="counting")
    for colors in (("red", "red"), ("red", "blue"), ("red", "red", "red"), ("red",)):
        dogs = [seen((i * 20, 0, i * 20 + 9, 9), color=c) for i, c in enumerate(colors)]
        right = [fine for _, fine in rated({"dog": dogs}, spec)]
        assert judge({"dog": dogs}, spec).correct == (all(right) and len(right) == 2)


def test_the_pixels_of_an_object_are_its_mask_or_its_box_within_the_picture() -> None:
    mask = np.eye(4, 6, dtype=bool)
    assert np.array_equal(pixels_of((0, 0, 6, 4), mask, (4, 6)), mask)
    found = pixels_of((-2.0, 1.4, 1.6, 9.0), None, (4, 6))
    assert found.sum() == 6 and found[1:, :2].all()
