"""How concentrated credit is, in rows of one length and of several."""

from __future__ import annotations

import torch

from t2i_credit.training.metrics import credit_metrics


def test_the_largest_credit_and_the_share_of_the_top_fifth_are_means_over_rows() -> None:
    uniform, first = torch.ones(10), torch.zeros(10)
    first[0] = 10.0
    # the top two of ten hold 2/10 of the first row and all of the second
    found = credit_metrics(torch.stack([uniform, first]))
    assert abs(found["credit_max"] - 5.5) < 1e-6 and abs(found["credit_top20"] - 0.6) < 1e-6


def test_rows_count_by_their_own_lengths_and_masked_rows_not_at_all() -> None:
    credit = torch.tensor(
        [
            [2.5, 0.5, 0.5, 0.5, 1.0, 0, 0, 0, 0, 0],  # the top one of five: 2.5 / 5
            [3.0] + [7 / 9] * 9,  # the top two of ten: (3 + 7/9) / 10
            [0.0] * 10,
        ]
    )
    mask = torch.tensor([[True] * 5 + [False] * 5, [True] * 10, [False] * 10])
    found = credit_metrics(credit, mask)
    assert abs(found["credit_max"] - 2.75) < 1e-6
    assert abs(found["credit_top20"] - (0.5 + (3 + 7 / 9) / 10) / 2) < 1e-6
    assert credit_metrics(credit, mask & False) == {"credit_max": 0.0, "credit_top20": 0.0}
