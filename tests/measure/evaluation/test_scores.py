"""Scores and pairs of evaluations: hand-derived values and intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from official_summary import summarize

from t2i_credit.errors import UserError
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.scores import Evaluation, paired
from t2i_credit.prompts.records import TASKS


def made_up(
    verdicts: dict[str, Sequence[Sequence[float]]],
    *,
    scores: Callable[[float], float] = float,
    disagreement: float | None = 0.5,
    **changed: Any,
) -> Evaluation:
    """An evaluation with the given verdicts, {task: one row of G per prompt}."""
    rows = [(task, row) for task, every in verdicts.items() for row in every]
    records = [
        {
            "tag": task,
            "prompt": f"{task} {p}",
            "correct": bool(value),
            "score": scores(value),
            "metadata": json.dumps({"tag": task, "prompt": f"{task} {p}"}),
            "prompt_index": p,
        }
        for p, (task, row) in enumerate(rows)
        for value in row
    ]
    settings = {"images_per_prompt": len(rows[0][1]), "cfg_scale": 2.0, **changed}
    return Evaluation(Protocol(**settings), [None] * len(rows), [disagreement] * len(rows), records)


# Scores -----------------------------------------------------------------------------------------------------------


def test_overall_is_the_mean_over_tasks_and_not_over_images() -> None:
    # 1 of 1 and 0 of 3 prompts: (1 + 0) / 2, although a quarter of the images is correct
    found = made_up({"colors": [[1, 1]], "position": [[0, 0]] * 3}).summary()
    assert found["overall"]["correct"] == 0.5
    assert found["overall"]["pass_at_k"] == 0.5
    assert (found["overall"]["prompts"], found["overall"]["images"]) == (4, 8)
    assert (found["position"]["prompts"], found["position"]["images"]) == (3, 6)


def test_a_summary_counts_images_checks_and_prompts() -> None:
    # 4 of 8 images; a failed image passes a fifth of its checks: (4 + 4 * 0.2) / 8; 3 of 4 prompts have a correct one
    rows = [[1, 1], [1, 0], [0, 1], [0, 0]]
    found = made_up({"colors": rows}, scores=lambda v: 1.0 if v else 0.2).summary()["colors"]
    assert found["correct"] == 0.5
    assert found["partial"] == pytest.approx(0.6)
    assert found["pass_at_k"] == 0.75
    assert found["disagreement"] == 0.5


def test_prompts_are_resampled_and_not_images() -> None:
    # 4 images that always agree say no more than one: 1.96 sqrt(0.25 / 100) = 0.098, not half of it
    rows = [[p % 2] * 4 for p in range(100)]
    found = made_up({"colors": rows}).summary()["colors"]
    assert found["high"] - found["low"] == pytest.approx(0.196, abs=0.025)


def test_the_scores_are_those_of_geneval(evaluation: Evaluation) -> None:
    official = summarize([(r["tag"], r["correct"]) for r in evaluation.records])
    found = {task: scores["correct"] for task, scores in evaluation.summary().items()}
    assert found == pytest.approx(official)
    assert list(found) == [*TASKS, "overall"]


def of_lines(*lines: tuple[str, Sequence[int]], negative: str | None = None) -> Evaluation:
    """An evaluation of lines or folders, each with a prompt and the verdicts on its images."""
    return Evaluation.gather(
        Protocol(cfg_scale=2.0),
        [
            (
                [
                    {
                        "tag": "colors",
                        "prompt": text,
                        "correct": bool(verdict),
                        "score": float(verdict),
                        "metadata": json.dumps({"tag": "colors", "prompt": text, "seed": line}),
                    }
                    for verdict in verdicts
                ],
                negative,
                None,
            )
            for line, (text, verdicts) in enumerate(lines)
        ],
    )


def test_lines_of_one_record_are_one_prompt() -> None:
    # a: 1 of 4, b: 0 of 4. As eight prompts of one image, 1/8 of them would have a correct one, and the interval
    # would be one over eight values
    lines = [("a", [1]), ("b", [0]), ("a", [0]), ("b", [0])] + [("a", [0]), ("b", [0])] * 2
    found = of_lines(*lines)
    row = found.summary()["colors"]
    assert (row["correct"], row["pass_at_k"]) == (0.125, 0.5)
    assert (row["prompts"], row["images"]) == (2, 8)
    assert found.protocol.images_per_prompt == 4
    assert found.summary() == of_lines(("a", [1, 0, 0, 0]), ("b", [0, 0, 0, 0])).summary()
    # another negative makes another prompt
    entries = [(found.rows()[0], negative, None) for negative in (None, "", None)]
    assert Evaluation.gather(found.protocol, entries).negatives == [None, ""]


def test_each_prompt_counts_alike_whatever_the_number_of_its_images() -> None:
    # (1/4 + 1/1) / 2, not 2 of 5 images; a correct image: both
    row = of_lines(("a", [1, 0, 0, 0]), ("b", [1])).summary()["colors"]
    assert (row["correct"], row["pass_at_k"], row["images"]) == (0.625, 1.0, 5)


# Pairs ------------------------------------------------------------------------------------------------------------


def test_a_pair_gives_the_change_of_every_task_and_of_their_mean() -> None:
    # colors 1/4 -> 3/4, position 1/2 -> 1/2: changes 1/2 and 0, mean 1/4
    before = made_up({"colors": [[0, 0], [0, 1]], "position": [[1, 0]]})
    after = made_up({"colors": [[1, 0], [1, 1]], "position": [[0, 1]]})
    found = paired(before, after)
    expected = {
        "colors": (0.25, 0.75, 0.5),
        "position": (0.5, 0.5, 0.0),
        "overall": (0.375, 0.625, 0.25),
    }
    names = ("before", "after", "change")
    assert {task: tuple(row[n] for n in names) for task, row in found.items()} == expected
    alone = before.summary()
    for task, row in found.items():
        assert (row["before_low"], row["before_high"]) == (alone[task]["low"], alone[task]["high"])
    assert found["colors"]["before_low"] < 0.25 < found["colors"]["before_high"]


def test_pairing_removes_the_variance_between_prompts() -> None:
    # every prompt gains exactly half: the change is surer than either score alone, of which half the prompts have half more
    rows = [[1, 0] if p % 2 else [0, 0] for p in range(10)]
    better = [[1, 1] if p % 2 else [1, 0] for p in range(10)]
    before, after = made_up({"colors": rows}), made_up({"colors": better})
    change = paired(before, after)["overall"]
    assert change["change"] == 0.5
    alone = before.summary()["overall"]
    assert change["high"] - change["low"] < 0.75 * (alone["high"] - alone["low"])


def test_the_interval_of_a_change_covers_prompts_that_lose_too() -> None:
    # 60 prompts gain 1, 40 lose 1: mean 0.2, sd sqrt(1 - 0.04) = 0.98, 1.96 * 0.098 = 0.192
    before = made_up({"colors": [[p >= 60] for p in range(100)]})
    after = made_up({"colors": [[p < 60] for p in range(100)]})
    found = paired(before, after)["colors"]
    assert found["change"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.008, 0.392), abs=0.03)
    back = paired(after, before)["colors"]
    assert (back["low"], back["high"]) == pytest.approx((-found["high"], -found["low"]))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is 0 before and 1 after"),
        ({"cfg_scale": 3.0}, "cfg_scale is 2.0 before and 3.0 after"),
        ({"temperature": 0.5}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.5}, "top_p"),
    ],
)
def test_evaluations_of_two_protocols_are_not_paired(changed: dict[str, Any], named: str) -> None:
    rows = {"colors": [[0, 1], [1, 1]]}
    with pytest.raises(UserError, match=named) as caught:
        paired(made_up(rows), made_up(rows, **changed))
    assert "\n" not in str(caught.value)


def test_evaluations_of_two_prompt_sets_are_not_paired() -> None:
    one = made_up({"colors": [[0, 1], [1, 1]]})
    with pytest.raises(UserError, match="images_per_prompt is 2 before and 1 after"):
        paired(one, made_up({"colors": [[0], [1]]}))
    with pytest.raises(UserError, match="2 prompts before and 1 after"):
        paired(one, made_up({"colors": [[0, 1]]}))
    with pytest.raises(UserError, match=r"prompt 1 \('colors 1' before, 'position 1' after\)"):
        paired(one, made_up({"colors": [[0, 1]], "position": [[1, 1]]}))
    with pytest.raises(UserError, match=r"prompt 1 .* negative"):
        paired(one, replace(one, negatives=[None, ""]))


def test_prompts_are_paired_by_their_records_and_not_by_their_places() -> None:
    # a 0 -> 1/2, b 1 -> 1: change 1/4, whatever the order
    before = of_lines(("a", [0, 0]), ("b", [1, 1]))
    after = of_lines(("b", [1]), ("a", [1]), ("a", [0]), ("b", [1]))
    change = paired(before, after)["colors"]
    assert (change["before"], change["after"], change["change"]) == (0.5, 0.75, 0.25)
    with pytest.raises(UserError, match=r"prompt 1 \('b' before, 'c' after\)"):
        paired(before, of_lines(("a", [0, 0]), ("c", [1, 1])))
    with pytest.raises(UserError, match="2 prompts before and 1 after"):
        paired(before, of_lines(("a", [0]), ("a", [0])))


def test_the_batch_size_does_not_keep_evaluations_from_being_paired() -> None:
    rows = {"colors": [[0, 1]]}
    found = paired(made_up(rows), made_up(rows, batch_size=3))
    assert found["overall"]["change"] == 0.0
