"""The numbers of a truth measurement, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t2i_credit.measure.intervals import (
    change_interval,
    mean_interval,
    per_prompt,
    ratio_interval,
    share_interval,
)
from t2i_credit.measure.truth.gradients import (
    direction_cosine,
    jackknife,
    large_batch_cosine,
    pair_cosine,
    signal_to_noise,
    times_cleaner,
)
from t2i_credit.training.metrics import auroc, mass_inside, pointing

ON = np.array([[False, True, False, True]])


def test_auroc_is_the_share_of_pairs_in_which_the_object_scores_higher() -> None:
    # on: 2 and 4; off: 1 and 3. 2 > 1, 4 > 1, 4 > 3, but 2 < 3: three of four pairs
    assert auroc(np.array([[1.0, 2.0, 3.0, 4.0]]), ON) == pytest.approx([0.75])


def test_a_tie_counts_half_and_equal_scores_are_chance() -> None:
    # on: 2 and 2; off: 1 and 2. 2 > 1 twice, 2 = 2 twice: (2 + 2 / 2) / 4
    assert auroc(np.array([[1.0, 2.0, 2.0, 2.0]]), ON) == pytest.approx([0.75])
    assert auroc(np.ones((1, 4)), ON) == pytest.approx([0.5])


def test_auroc_is_unknown_where_all_tokens_are_on_one_side() -> None:
    scores = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert np.isnan(auroc(scores, np.array([[True, True], [False, False]]))).all()


def test_mass_is_the_share_of_the_score_on_objects() -> None:
    assert mass_inside(np.array([[1.0, 3.0, 0.0, 4.0]]), ON) == pytest.approx([7 / 8])
    # no score at all says nothing: the share of the tokens
    assert mass_inside(np.zeros((1, 4)), ON) == pytest.approx([0.5])


def test_of_several_top_tokens_pointing_takes_the_share_on_objects() -> None:
    assert pointing(np.array([[1.0, 5.0, 2.0, 3.0]]), ON) == pytest.approx([1.0])
    assert pointing(np.array([[5.0, 5.0, 5.0, 3.0]]), ON) == pytest.approx([1 / 3])


def test_a_prompt_is_the_mean_of_its_known_samples() -> None:
    found = per_prompt(np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan]), 2)
    assert found[:2] == pytest.approx([2.0, 5.0])
    assert math.isnan(found[2])


def test_unknown_prompts_are_left_out_and_equal_ones_prove_nothing() -> None:
    for interval in (mean_interval, share_interval, change_interval):
        assert all(map(math.isnan, interval(np.array([np.nan]))))
        assert interval(np.array([0.3, np.nan])) == pytest.approx(
            [0.3, math.nan, math.nan], nan_ok=True
        )
    assert mean_interval(np.full(9, 0.3)) == pytest.approx([0.3, math.nan, math.nan], nan_ok=True)
    # 1, 2, 3: t(2) = 4.302653, standard error 1 / sqrt(3)
    assert mean_interval(np.array([1.0, np.nan, 2.0, 3.0])) == pytest.approx(
        [2.0, 2 - 2.484138, 2 + 2.484138], abs=1e-5
    )
    low, high = share_interval(np.array([1.0, 1.0, np.nan, 1.0]))[1:]
    assert 0 < low < 1 == high


def test_a_ratio_is_that_of_the_means_and_has_no_upper_end_where_the_divisor_may_be_zero() -> None:
    found = ratio_interval(np.array([2.0, 4.0]), np.array([1.0, 1.0]))
    assert found == pytest.approx([3.0, 2.0, 4.0])
    found = ratio_interval(np.array([1.0, 1.0]), np.array([0.0, 1.0]))
    assert found[0] == pytest.approx(2.0) and found[2] == math.inf
    found = ratio_interval(np.array([1.0, np.nan]), np.array([0.5, 1.0]))
    assert found == pytest.approx([2.0, math.nan, math.nan], nan_ok=True)


# Gradients: rows are those of the batches
G = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, -1.0]])
U = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])


def test_the_signal_is_the_mean_product_of_different_batches() -> None:
    # products: g1 g2 = 1, g1 g3 = 1, g2 g3 = -1, mean 1/3; squares 1, 5, 2, mean 8/3; noise 8/3 - 1/3
    assert signal_to_noise(G @ G.T) == pytest.approx((1 / 3) / (7 / 3))


def test_the_pair_cosine_is_the_mean_cosine_of_different_batches() -> None:
    expected = (1 / math.sqrt(5) + 1 / math.sqrt(2) - 1 / math.sqrt(10)) / 3
    assert pair_cosine(G @ G.T) == pytest.approx(expected)
    assert pair_cosine(np.zeros((2, 2))) == 0.0  # batches that teach nothing


def test_the_large_batch_is_all_other_batches_together() -> None:
    # others' sums: u2 + u3 = (2, 1), u1 + u3 = (1, 2), u1 + u2 = (3, 1)
    cosines = [2 / math.sqrt(5), 5 / 5, 2 / math.sqrt(2 * 10)]
    assert large_batch_cosine(G @ G.T, G @ U.T, U @ U.T) == pytest.approx(np.mean(cosines))


def test_a_multiple_of_uniforms_gradient_has_its_direction_whatever_the_noise() -> None:
    noisy = np.array([[5.0, 1.0], [1.0, 1.0], [0.5, -1.0]])
    assert direction_cosine(4 * noisy @ noisy.T, 2 * noisy @ noisy.T, noisy @ noisy.T) == (
        pytest.approx(1.0)
    )
    opposite = direction_cosine(noisy @ noisy.T, -noisy @ noisy.T, noisy @ noisy.T)
    assert opposite == pytest.approx(-1.0)


def test_a_direction_that_is_not_resolved_is_unknown() -> None:
    turned = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert math.isnan(direction_cosine(turned @ turned.T, turned @ turned.T, turned @ turned.T))


def test_the_jackknife_of_a_mean_is_the_t_interval() -> None:
    # 1, 2, 3, 4: standard error 1.29099 / 2, t(3) at 97.5% = 3.18245, half-width 2.05427
    found = jackknife(lambda m: float(np.diag(m).mean()), np.diag([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx([2.5, 2.5 - 2.05427, 2.5 + 2.05427], abs=1e-4)


def test_batches_that_teach_nothing_have_no_ratio_and_no_interval() -> None:
    nothing = np.zeros((3, 3))
    assert all(math.isnan(value) for value in jackknife(signal_to_noise, nothing))
    one = np.diag([0.0, 0.0, 1.0])  # without the last batch there is nothing
    estimate, low, high = jackknife(signal_to_noise, one)
    assert estimate == 0.0 and math.isnan(low) and math.isnan(high)


def test_times_cleaner_is_the_ratio_with_an_interval_of_its_logarithm() -> None:
    signal = np.ones((4, 4))  # of every pair of batches; the noise comes on top, on the diagonal
    found = times_cleaner(signal + np.diag([1.0, 2.0, 3.0, 4.0]), signal + 4 * np.eye(4))
    # 1 / 2.5 over 1 / 4 = 1.6. Without a batch the mean noise is 3, 8/3, 7/3 or 2, the log ratio 0.2877, 0.4055,
    # 0.5390 or 0.6931: squared deviations from their mean add up to 0.09145, times 3/4 that is 0.26189 squared;
    # t(3) at 97.5% = 3.18245 makes it 0.83344, and log 1.6 = 0.47000
    assert found == pytest.approx([1.6, math.exp(-0.36344), math.exp(1.30344)], abs=1e-3)


def test_without_a_signal_nothing_is_cleaner() -> None:
    signal, nothing = np.ones((4, 4)) + np.eye(4), np.eye(4)
    assert all(map(math.isnan, times_cleaner(signal, nothing)))
    assert all(map(math.isnan, times_cleaner(nothing, signal)))
