"""What several seeds show, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from t2i_credit.errors import UserError
from t2i_credit.measure.intervals import (
    NO_DIFFERENCE,
    area_under,
    paired_difference,
    paired_ratio,
    prediction_interval,
    running_mean,
    samples_to_reach,
    t_interval,
    up_to,
    verdict,
    window_of,
    with_interval,
)

WORDS = ("a above b", "b above a")


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    # 1, 2, 3: standard deviation 1, t(2) at 97.5% = 4.302653, half-width 4.302653 / sqrt(3) = 2.484138
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.484138, 4.484138), abs=1e-5)


def test_a_new_seed_varies_by_its_own_noise_and_that_of_the_mean() -> None:
    # half-width 4.302653 * sqrt(1 + 1/3) = 4.968276
    expected = (2.0, 2 - 4.968276, 2 + 4.968276)
    assert prediction_interval([1.0, 2.0, 3.0]) == pytest.approx(expected, abs=1e-5)


def test_pairs_cancel_what_the_seeds_share() -> None:
    # differences 0.10, 0.12, 0.11: standard deviation 0.01, half-width 0.024841
    found = paired_difference([0.5, 0.82, 0.31], [0.4, 0.7, 0.2], WORDS)
    assert found[:3] == pytest.approx((0.11, 0.11 - 0.024841, 0.11 + 0.024841), abs=1e-5)
    assert found.words == "a above b"
    assert paired_difference([0.4, 0.7, 0.2], [0.5, 0.82, 0.31], WORDS).words == "b above a"


def test_an_interval_that_holds_zero_shows_no_difference() -> None:
    found = paired_difference([0.1, -0.1], [0.0, 0.0], WORDS)
    assert found.low < 0 < found.high and found.words == NO_DIFFERENCE
    assert paired_difference([0.3, 0.4], [0.3, 0.4], WORDS).words == NO_DIFFERENCE


def test_ratios_are_averaged_as_logarithms() -> None:
    found = paired_ratio([2.0, 8.0], [1.0, 1.0], WORDS)
    # log2: 1 and 3, standard deviation sqrt(2), half-width 12.7062 * sqrt(2) / sqrt(2)
    assert found.mean == pytest.approx(4.0)
    assert math.log2(found.high) == pytest.approx(2 + 12.7062, abs=1e-3)
    assert found.words == NO_DIFFERENCE


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(UserError, match=r"--seeds: 1 is not allowed; .* at least 2"):
        t_interval([0.5])


def test_seeds_that_agree_have_no_interval_and_show_nothing() -> None:
    assert t_interval([1.0, 1.0, 1.0]) == pytest.approx((1.0, math.nan, math.nan), nan_ok=True)
    assert (
        paired_difference([0.5, 0.7], [0.3, 0.5], WORDS).words == "no difference shown"
    )  # equal but for rounding
    assert paired_difference([0.5, 0.75], [0.25, 0.5], WORDS).words == NO_DIFFERENCE


def test_an_interval_in_words() -> None:
    assert with_interval(0.5, 0.25, 0.75) == "0.500 [0.250, 0.750]"
    assert with_interval(0.5, None, None) == with_interval(0.5, math.nan, math.nan)
    assert with_interval(0.5, None, None) == "0.500 [no interval]"
    assert [verdict(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (None, None))] == [
        1,
        -1,
        0,
        0,
    ]


def test_a_running_mean_takes_the_last_values() -> None:
    assert running_mean([1.0, 2.0, 6.0, 1.0], 2) == pytest.approx([1.0, 1.5, 4.0, 3.5])
    assert [window_of(steps) for steps in (2, 10, 360)] == [1, 1, 36]


def test_a_curve_is_cut_between_two_steps() -> None:
    assert up_to([10, 20, 50], [0.0, 1.0, 4.0], 30) == ([10, 20, 30.0], [0.0, 1.0, 2.0])
    assert up_to([10, 20, 50], [0.0, 1.0, 4.0], 50) == ([10, 20, 50.0], [0.0, 1.0, 4.0])


def test_the_area_is_the_mean_height_over_the_samples() -> None:
    # trapezoids: (0 + 1) / 2 * 10 and (1 + 1) / 2 * 30 over 40 samples
    assert area_under([10, 20, 50], [0.0, 1.0, 1.0]) == pytest.approx(35 / 40)
    assert area_under([10], [0.3]) == pytest.approx(0.3)


def test_a_target_is_reached_by_whole_windows_only() -> None:
    rewards = [0.9, 0.1, 0.5, 0.7]
    # means of two: 0.5, 0.3, 0.6; the first step alone is no window
    assert samples_to_reach([10, 20, 30, 40], rewards, 0.6, 2) == (40.0, False)
    assert samples_to_reach([10, 20, 30, 40], rewards, 0.5, 2) == (20.0, False)


def test_a_target_that_is_never_reached_is_censored_at_the_end() -> None:
    assert samples_to_reach([10, 20], [0.1, 0.2], 0.6, 1) == (20.0, True)
