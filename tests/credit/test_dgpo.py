"""Distribution-guided credit by hand, and normalised entropy."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_credit.credit.dgpo import distribution_guided, normalized_entropy
from t2i_credit.rollout.logprobs import hellinger


def test_distribution_guided_credit_is_a_softmax_of_distance_times_entropy():
    # s = 0.5 * 1, 1 * 0.5, 0.5 * 0 = 0.5, 0.5, 0; s / tau = 1, 1, 0; 3 e / (2 e + 1) = 1.266956
    found = distribution_guided(
        torch.tensor([[0.5, 1.0, 0.5]]),
        torch.tensor([[1.0, 0.5, 0.0]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    expected = torch.tensor([[1.266956, 1.266956, 0.466087]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_distribution_guided_credit_is_uniform_while_the_policy_is_the_reference():
    logits = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(5)) * 4
    distance = hellinger(logits, logits.clone())
    assert torch.equal(distance, torch.zeros(2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    credit = distribution_guided(distance, normalized_entropy(logits), mask)
    assert torch.equal(credit, torch.ones(2, 6))


def test_a_policy_near_its_reference_keeps_distribution_guided_weights_within_two_percent():
    # s / tau <= 0.01 / 0.5 = 0.02, and e^0.02 = 1.0202
    draw = torch.Generator().manual_seed(6)
    distance = torch.rand(3, 40, generator=draw) * 0.01
    undecided = torch.rand(3, 40, generator=draw)
    credit = distribution_guided(distance, undecided, torch.ones(3, 40, dtype=torch.bool))
    assert 1 < credit.max() < 1.0203 and credit.min() > 0.98


def test_normalized_entropy_is_one_for_flat_and_zero_for_certain_logits():
    flat, certain = torch.zeros(1, 64), torch.tensor([[0.0] + [-math.inf] * 63])
    assert normalized_entropy(flat).item() == pytest.approx(1, abs=1e-6)
    assert normalized_entropy(certain).item() == 0
    # two of four codes equally likely: ln 2 / ln 4
    half = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    assert normalized_entropy(half).item() == pytest.approx(0.5, abs=1e-6)
