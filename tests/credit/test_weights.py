"""The shapes of credit by hand: power rank, proportional, softmax, strength."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.credit.weights import apply_strength, power_rank, proportional, softmax_shape
from t2i_credit.errors import UserError

# ---- power rank ----


def test_power_rank_with_half_the_tokens_holding_three_quarters_is_linear_in_rank():
    # a = ln(1/4) / ln(1/2) - 1 = 1, so w = 4 * rank / (1 + 2 + 3 + 4)
    found = power_rank(
        torch.tensor([[0.3, 0.1, 5.0, 0.2]]),
        torch.ones(1, 4, dtype=torch.bool),
        top=0.5,
        mass=0.75,
    )
    torch.testing.assert_close(found, torch.tensor([[1.2, 0.4, 1.6, 0.8]]), rtol=0, atol=1e-6)


def test_power_rank_gives_ties_their_average_rank_and_ranks_within_the_mask():
    # ranks of 3, 1, 3, 7 are 2.5, 1, 2.5, 4; the 9 does not count
    mask = torch.tensor([[True, True, False, True, True]])
    found = power_rank(torch.tensor([[3.0, 1.0, 9.0, 3.0, 7.0]]), mask, top=0.5, mass=0.75)
    expected = torch.tensor([[1.0, 0.4, 0.0, 1.0, 1.6]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_power_rank_lets_the_top_40_percent_hold_80_percent_of_the_credit():
    # a = ln 0.2 / ln 0.6 - 1 = 2.1507. For N = 576, sum (k/N)^a = N / (a + 1) + 1/2 + ... = 183.32
    # (Euler-Maclaurin), so the largest weight is 576 / 183.32 = 3.142.
    # The top 230 = 39.93% hold 1 - 0.60069^3.1507 = 0.7993, and half a step more: 0.8001.
    values = torch.randn(2, 576, generator=torch.Generator().manual_seed(0)).square()
    credit = power_rank(values, torch.ones(2, 576, dtype=torch.bool))
    ordered = credit.sort(dim=1, descending=True).values
    torch.testing.assert_close(ordered[:, 0], torch.full((2,), 3.142), rtol=0, atol=1e-3)
    share = ordered[:, :230].sum(dim=1) / 576
    torch.testing.assert_close(share, torch.full((2,), 0.800), rtol=0, atol=1.5e-3)


def test_power_rank_orders_more_tokens_than_bfloat16_could_count():
    # 4,096 distinct ranks must give 4,096 distinct weights
    values = torch.arange(4096.0)[None]
    credit = power_rank(values, torch.ones(1, 4096, dtype=torch.bool))
    assert (credit.diff(dim=1) > 0).all()
    assert credit.mean().item() == pytest.approx(1, abs=1e-5)


def test_power_rank_with_mass_equal_to_top_is_uniform_and_less_is_refused():
    values = torch.rand(2, 9, generator=torch.Generator().manual_seed(7))
    mask = torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(power_rank(values, mask, top=0.4, mass=0.4), torch.ones(2, 9))
    for top, mass in [(0.4, 0.3), (0.0, 0.5), (0.4, 1.0)]:
        with pytest.raises(UserError, match="top"):
            power_rank(values, mask, top=top, mass=mass)


def test_power_rank_refuses_a_top_that_vanishes_beside_one():
    # 1 - 1e-300 is 1 in float64, and the exponent would divide by ln 1 = 0
    with pytest.raises(UserError, match="top of at least 2e-16, got 1e-300"):
        power_rank(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), top=1e-300)


# ---- the other shapes ----


def test_proportional_credit_is_contrast_over_its_mean():
    # mean over the mask is (1 + 2 + 9) / 3 = 4
    mask = torch.tensor([[True, True, False, True]])
    found = proportional(torch.tensor([[1.0, 2.0, 100.0, 9.0]]), mask)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.5, 0.0, 2.25]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_proportional_credit_does_not_depend_on_the_size_of_the_contrast(size):
    found = proportional(torch.tensor([[1.0, 3.0]]) * size, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5]]), rtol=0, atol=1e-5)


def test_rows_without_contrast_are_uniform_and_do_not_touch_their_neighbours():
    values = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    for shape in (power_rank, proportional, softmax_shape):
        credit = shape(values, mask)
        assert torch.equal(credit[0], torch.ones(3))
        assert credit[1, 0] < credit[1, 1] < credit[1, 2]


def test_softmax_shape_works_on_contrast_over_the_rows_largest():
    # c / max c = 0, 1/2, 1 at temperature 1/2: e^0, e^1, e^2 = 1, 2.718282, 7.389056, sum 11.107338
    found = softmax_shape(
        torch.tensor([[0.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool), temperature=0.5
    )
    expected = torch.tensor([[0.270092, 0.734185, 1.995723]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    with pytest.raises(UserError, match="temperature"):
        softmax_shape(torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool), temperature=0)


# ---- knobs ----


def test_strength_moves_credit_from_uniform_to_itself_in_a_straight_line():
    mask = torch.tensor([[True, True, False]])
    credit = torch.tensor([[0.5, 1.5, 0.0]])
    assert torch.equal(apply_strength(credit, mask, 1.0), credit)
    # 1 + 0.25 * (+-0.5)
    assert apply_strength(credit, mask, 0.25).tolist() == [[0.875, 1.125, 0.0]]
    with pytest.raises(UserError, match="strength"):
        apply_strength(credit, mask, 1.5)
