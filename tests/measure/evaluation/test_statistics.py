"""The statistics of an evaluation, by hand: intervals of tasks, official means, disagreement."""

from __future__ import annotations

import numpy as np
import pytest
from official_summary import summarize

from t2i_credit.measure.evaluation.scores import by_task
from t2i_credit.measure.intervals import task_intervals, task_means
from t2i_credit.training.metrics import token_disagreement


def test_the_interval_of_a_constant_is_that_constant() -> None:
    found = task_intervals({"colors": np.full(7, 0.25), "counting": np.full(3, 0.75)})
    assert found == {
        "colors": (0.25, 0.25, 0.25),
        "counting": (0.75, 0.75, 0.75),
        "overall": (0.5, 0.5, 0.5),
    }


def test_the_means_of_tasks_are_the_official_summary_in_its_order() -> None:
    results = [("position", True), ("colors", True), ("colors", False), ("colors", False)]
    results += [("mine", False), ("single_object", True)]
    tags = [task for task, _ in results]
    scores = task_means(by_task(tags, np.array([correct for _, correct in results], dtype=float)))
    assert scores == pytest.approx(summarize(results))
    # (1 + 1/3 + 1 + 0) / 4, where the mean over the six images would be 1/2.
    assert scores == pytest.approx(
        {"single_object": 1.0, "colors": 1 / 3, "position": 1.0, "mine": 0.0, "overall": 7 / 12}
    )
    assert list(scores) == ["single_object", "colors", "position", "mine", "overall"]


def test_an_interval_is_two_standard_errors_wide_on_either_side() -> None:
    # 50 zeros and 50 ones: the standard error of the mean is sqrt(0.25 / 100) = 0.05, 95% = 1.96 of them = 0.098.
    # Of two such tasks the mean has 0.05 / sqrt(2), hence 0.0693. The ends come from 2000 draws in steps of 0.01.
    half = np.repeat([0.0, 1.0], 50)
    found = task_intervals({"colors": half, "counting": half})
    assert found["colors"] == pytest.approx((0.5, 0.402, 0.598), abs=0.012)
    assert found["overall"] == pytest.approx((0.5, 0.4307, 0.5693), abs=0.008)


def test_the_two_tasks_of_an_overall_interval_are_drawn_independently() -> None:
    # drawn alike, two tasks of equal values would give overall the width of one task
    half = np.repeat([0.0, 1.0], 50)
    found = task_intervals({"colors": half, "counting": half})
    width = {task: high - low for task, (_, low, high) in found.items()}
    assert width["overall"] < 0.8 * width["colors"]


def test_the_interval_of_a_task_does_not_depend_on_the_other_tasks() -> None:
    numbers = np.random.default_rng(0).random(9)
    alone = task_intervals({"colors": numbers})
    among = task_intervals({"counting": numbers[:4], "colors": numbers})
    assert among["colors"] == alone["colors"] == task_intervals({"colors": numbers})["overall"]
    assert task_intervals({"colors": numbers}, seed=1)["colors"] != alone["colors"]


def test_values_are_split_by_task_in_the_official_order() -> None:
    tags = ["mine", "position", "single_object", "mine"]
    found = by_task(tags, np.arange(4.0))
    assert list(found) == ["single_object", "position", "mine"]
    assert {task: v.tolist() for task, v in found.items()} == {
        "single_object": [2.0],
        "position": [1.0],
        "mine": [0.0, 3.0],
    }


def test_disagreement_is_the_share_of_positions_at_which_two_samples_differ() -> None:
    # first prompt: 00 01 11 differ in 1, 2 and 1 of 2 positions: (1/2 + 1 + 1/2) / 3 = 2/3; second prompt: all alike
    tokens = np.array([[[0, 0], [0, 1], [1, 1]], [[5, 6], [5, 6], [5, 6]]])
    assert token_disagreement(tokens) == pytest.approx([2 / 3, 0.0])
    assert token_disagreement(tokens[:, :1]) == [None, None]
