"""Critical tokens by hand: the fields that choose them, their weights and the weights of their KL term."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.credit.critical import (
    critical_mask,
    critical_tokens,
    entropy_gradient,
    group_similarity,
)
from t2i_credit.credit.table import CREDIT
from t2i_credit.errors import UserError


def test_group_similarity_is_the_mean_cosine_over_pairs():
    # one position, three samples: cosines 1, 0, 0; a vector's length does not count
    vectors = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]], [[0.0, 2.0]]])
    found = group_similarity(torch.cat([vectors, vectors.roll(1, 0)]), 3)
    torch.testing.assert_close(found, torch.full((6, 1), 1 / 3), rtol=0, atol=1e-6)


def test_entropy_gradient_is_the_slope_of_the_mean_over_earlier_neighbours():
    # entropy 0 0 6 / 0 0 0; causal means 0 0 3 (of 6 and its left) / 0 1.2 (6 above right, of five) 1.5 (of four)
    # across: 0 1.5 3 / 1.2 0.75 0.3; down, one-sided in two rows: 0 1.2 -1.5 in both
    entropy = torch.tensor([[0.0, 0.0, 6.0, 0.0, 0.0, 0.0]])
    found = entropy_gradient(entropy, (2, 3))
    expected = torch.tensor([[0.0, 1.920937, 3.354102, 1.2, 1.415097, 1.529706]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_entropy_gradient_takes_central_differences_inside_and_needs_no_second_row():
    # a single row: means of a token and its left are 0, 1, 3, 5; differences 1, 1.5, 2, 2
    found = entropy_gradient(torch.tensor([[0.0, 2.0, 4.0, 6.0]]), (1, 4))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.5, 2.0, 2.0]]), rtol=0, atol=1e-6)


def critical_fields():
    """Ten tokens: the steepest of all is the last, of those from 10% to 90% the fifth; the group differs most in the
    first and fifth, which are taken, and then in the eighth."""
    steepness, alike = torch.zeros(1, 10), torch.ones(1, 10)
    steepness[0, 9], steepness[0, 4] = 2.0, 1.0
    alike[0, 0], alike[0, 4], alike[0, 7] = -1.0, -0.9, 0.2
    return steepness, alike, torch.ones(1, 10, dtype=torch.bool)


def test_critical_tokens_are_the_first_the_steepest_inside_and_the_least_alike_of_the_rest():
    assert critical_mask(*critical_fields())[0].nonzero().flatten().tolist() == [0, 4, 7]


def test_positions_of_critical_tokens_are_counted_within_the_mask():
    steepness, alike, mask = critical_fields()
    junk = torch.full((1, 5), 9.0)
    steepness, alike = torch.cat([junk, steepness], 1), torch.cat([-junk, alike], 1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.bool), mask], 1)
    assert critical_mask(steepness, alike, mask)[0].nonzero().flatten().tolist() == [5, 9, 12]


def test_critical_tokens_are_weighted_by_the_running_mean_of_the_clamped_ratio():
    # ratio e^0.5 (of e^1) at the first token, 1 after it: running mean 1.648721, (e^0.5 + 4) / 5 = 1.129744 at the
    # fifth, (e^0.5 + 7) / 8 = 1.081090 at the eighth; over their sum 3.859556, times 10
    steepness, alike, mask = critical_fields()
    ref = torch.full((1, 10), -3.0)
    policy = ref.clone()
    policy[0, 0] += 1
    found = critical_tokens(steepness, alike, policy, ref, mask)
    expected = torch.zeros(1, 10)
    expected[0, [0, 4, 7]] = torch.tensor([4.271790, 2.927136, 2.801073])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_kl_weight_of_critical_tokens_is_one_on_them_and_zero_elsewhere():
    steepness, alike, mask = critical_fields()
    fields = {"entropy_gradient": steepness, "group_similarity": alike}
    found = CREDIT["critical_tokens"].kl_weights(fields, torch.rand(1, 10), mask, {"fraction": 0.1})
    assert found.tolist() == [[1.0, 0, 0, 0, 1.0, 0, 0, 1.0, 0, 0]]


def test_too_few_tokens_for_a_fraction_are_all_critical_and_too_large_a_fraction_is_refused():
    steepness, alike, mask = critical_fields()
    assert torch.equal(critical_mask(steepness, alike, mask, fraction=0.09), mask)
    for fraction in (0.0, 0.31):
        with pytest.raises(UserError, match="fraction"):
            critical_mask(steepness, alike, mask, fraction=fraction)
