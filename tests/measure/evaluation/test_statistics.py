"""The statistics of an evaluation, by hand: intervals of tasks, official means, disagreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from official_summary import summarize
from scipy.stats import beta

from t2i_credit.measure.evaluation.scores import by_task
from t2i_credit.measure.intervals import change_intervals, task_intervals, task_means
from t2i_credit.training.metrics import token_disagreement


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


def test_a_task_of_one_prompt_has_no_interval_and_neither_has_its_overall() -> None:
    found = task_intervals({"colors": np.array([0.5]), "counting": np.array([0.0, 1.0])})
    assert found["colors"] == pytest.approx((0.5, math.nan, math.nan), nan_ok=True)
    assert found["overall"] == pytest.approx((0.5, math.nan, math.nan), nan_ok=True)
    assert 0 <= found["counting"][1] < 0.5 < found["counting"][2] <= 1
    changed = change_intervals({"colors": np.array([0.5]), "counting": np.array([0.0, 0.5])})
    assert math.isnan(changed["colors"][1]) and math.isnan(changed["overall"][2])


def test_an_interval_is_clopper_and_pearsons_at_the_effective_size() -> None:
    # 7 of 10 right, one image each: variance of the mean 0.7 * 0.3 / 9, so 0.21 / (0.21 / 9) = 9 prompts; of the 3 wrong
    # ones comes the weight 3 / 4: (3 * 9 + 10) / 4 = 9.25; times (1.959964 / 2.262157)^2 = 0.750670, t with 9 degrees: 6.943700
    found = task_intervals({"colors": np.repeat([1.0, 0.0], [7, 3])})["colors"]
    size = 6.943700
    low, high = (
        beta.ppf(0.025, 0.7 * size, 0.3 * size + 1),
        beta.ppf(0.975, 0.7 * size + 1, 0.3 * size),
    )
    assert found == pytest.approx((0.7, low, high), abs=1e-5)


def test_where_all_is_right_the_interval_still_has_a_width_that_more_prompts_narrow() -> None:
    # all of n right: 0.025^(1 / size), size = n times (1.959964 / t(n - 1))^2: 20 * (1.959964 / 2.093024)^2 = 17.5379
    few, many = (task_intervals({"colors": np.ones(n)})["colors"] for n in (20, 200))
    assert few == pytest.approx((1.0, 0.025 ** (1 / 17.5379), 1.0), abs=1e-4)  # 0.810
    assert few[1] < many[1] < 1
    assert task_intervals({"colors": np.zeros(20)})["colors"][2] == pytest.approx(1 - few[1])


def test_more_images_of_one_prompt_are_no_independent_evidence() -> None:
    alike = np.repeat([0.0, 1.0], 50)  # whatever G is: all images of a prompt agree
    apart = np.tile([0.25, 0.75], 50)  # of four images
    wide, narrow = (task_intervals({"a": values})["a"] for values in (alike, apart))
    # 100 prompts, one image: standard error 0.05, 1.98 of them
    assert wide == pytest.approx((0.5, 0.401, 0.599), abs=0.006)
    # half the spread between prompts, half the width
    assert narrow[2] - narrow[1] == pytest.approx(0.5 * (wide[2] - wide[1]), rel=0.06)


def test_two_tasks_are_independent_evidence_for_their_mean() -> None:
    half = np.repeat([0.0, 1.0], 50)
    found = task_intervals({"colors": half, "counting": half})
    width = {task: high - low for task, (_, low, high) in found.items()}
    assert width["overall"] == pytest.approx(width["colors"] / 2**0.5, rel=0.04)
    assert found["colors"] == task_intervals({"colors": half})["overall"]


def test_a_change_is_a_t_interval_with_half_a_prompt_added() -> None:
    # 0.1, 0.3: mean 0.2, variance of the mean 0.02 / 2 + 0.5 / 4 = 0.135; t(1) = 12.7062 reaches beyond the scale
    assert change_intervals({"a": np.array([0.1, 0.3])})["a"] == pytest.approx((0.2, -1, 1))
    # ten of 0.1 and ten of 0.3: 0.2 / 19 / 20 + 0.5 / 400 = 0.00177632; t(19) = 2.093024
    found = change_intervals({"a": np.repeat([0.1, 0.3], 10)})["a"]
    assert found == pytest.approx((0.2, 0.2 - 0.088214, 0.2 + 0.088214), abs=1e-5)


def test_that_nothing_changed_among_few_prompts_does_not_prove_that_nothing_does() -> None:
    few, many = (change_intervals({"a": np.zeros(n)})["a"] for n in (5, 500))
    # 2.776445 * sqrt(0.5) / 5
    assert few == pytest.approx((0.0, -0.392649, 0.392649), abs=1e-5)
    assert many[2] < 0.003


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
