"""The partial GenEval score, malformed records, and the official prompt list."""

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

from t2i_credit.errors import PromptError
from t2i_credit.geneval import Detection, judge
from t2i_credit.prompts.records import RELATIONS, TASKS, validate_spec

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
