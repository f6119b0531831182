"""Noisy captions: how often a word is wrong, and which."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
from drawn_shapes import clause, record, words

from t2i_credit.prompts.records import NUMBERS, RELATIONS, validate_spec
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.mistakes import CONFUSIONS, shown_record
from t2i_credit.worlds.shapes.scene import COLORS, SHAPES


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
    kinds = [set(SHAPES), set(COLORS), set(RELATIONS), set(NUMBERS)]
    assert set(CONFUSIONS) == set.union(*kinds)
    for word, (usual, share) in CONFUSIONS.items():
        assert usual != word and 0 < share < 1
        assert any({word, usual} <= kind for kind in kinds)
