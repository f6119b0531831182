"""Credit by entropy, by hand: the cut, and EG-GRPO."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.credit.entropy import ENTROPY_GUIDED, entropy_guided, top_entropy
from t2i_credit.errors import UserError


def test_top_entropy_takes_its_quantile_per_row():
    # 10 tokens, rho = 0.2: the two largest of each row get 10 / 2 = 5, however certain the row is
    entropy = torch.stack([torch.arange(10.0), torch.arange(10.0).flip(0) / 1000])
    credit = top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.2)
    assert credit[0].tolist() == [0.0] * 8 + [5.0] * 2
    assert credit[1].tolist() == [5.0] * 2 + [0.0] * 8
    with pytest.raises(UserError, match="rho"):
        top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.0)


# H of five tokens: the 0.2 quantile is 0.18 (a fifth of the way from the first to the second), the 0.5 quantile 0.5
ENTROPY = torch.tensor([[0.1, 0.2, 0.5, 0.6, 1.0]])
FULL = torch.ones(1, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("advantage", "direction", "expected"),
    [
        # min(0.3 |A|, 0.3 H): 0.18 and 0.3 where |A| is 2
        (2.0, "positive", [0.0, 2.0, 2.0, 2.18, 2.3]),
        (2.0, "advantage", [0.0, 2.0, 2.0, 2.18, 2.3]),
        # a bad image is punished less where it was unsure, as published; more by ours
        (-2.0, "positive", [0.0, -2.0, -2.0, -1.82, -1.7]),
        (-2.0, "advantage", [0.0, -2.0, -2.0, -2.18, -2.3]),
        # the limit 0.3 |A| = 0.06 holds the bonus
        (0.2, "positive", [0.0, 0.2, 0.2, 0.26, 0.26]),
        (0.0, "positive", [0.0] * 5),
    ],
)
def test_entropy_guided_advantages_are_none_below_a_fifth_and_more_above_the_median(
    advantage: float, direction: str, expected: list[float]
) -> None:
    found = entropy_guided(torch.tensor([advantage]), ENTROPY, FULL, direction=direction)
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=0, atol=1e-6)


def test_entropy_guided_credit_shows_the_advantages_and_the_loss_takes_them_as_published() -> None:
    fields, parameters = {"normalized_entropy": ENTROPY}, {"strength": 0.5}
    bad = torch.tensor([-2.0])
    credit = ENTROPY_GUIDED.assign(fields, FULL, bad)
    # 0, 2, 2, 1.82, 1.7 over their mean 1.504
    expected = torch.tensor([[0.0, 2.0, 2.0, 1.82, 1.7]]) / 1.504
    torch.testing.assert_close(credit, expected, rtol=0, atol=1e-6)
    pushed = ENTROPY_GUIDED.token_advantages(fields, credit, FULL, bad, {})
    expected = torch.tensor([[0.0, -2.0, -2.0, -1.82, -1.7]])
    torch.testing.assert_close(pushed, expected, rtol=0, atol=1e-6)
    halfway = ENTROPY_GUIDED.token_advantages(fields, credit, FULL, bad, parameters)
    torch.testing.assert_close(halfway, (expected - 2) / 2, rtol=0, atol=1e-6)


def test_the_published_bonus_lifts_the_mean_advantage_and_ours_does_not() -> None:
    pair = torch.tensor([1.0, -1.0])
    rows = ENTROPY.expand(2, 5), FULL.expand(2, 5)
    # bonuses of 0.18 and 0.3 on each of both images, ten tokens
    assert entropy_guided(pair, *rows).mean().item() == pytest.approx(0.096, abs=1e-6)
    found = entropy_guided(pair, *rows, direction="advantage")
    assert found.mean().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"excluded": 1.5}, {"above": -0.1}, {"bonus": -1.0}])
def test_entropy_guided_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        entropy_guided(torch.ones(1), ENTROPY, FULL, **wrong)
