"""The KL weight by credit."""

from __future__ import annotations

import torch

from t2i_credit.credit.entry import kl_weight


def test_kl_weight_halves_the_penalty_from_credit_one_upwards():
    # 2 - 2w = 2, 1, 0.5, 0, -4 for w = 0, 0.5, 0.75, 1, 3
    credit = torch.tensor([[0.0, 0.5, 0.75, 1.0, 3.0, 0.0]])
    mask = torch.tensor([[True] * 5 + [False]])
    assert kl_weight(credit, mask).tolist() == [[1.0, 1.0, 0.75, 0.5, 0.5, 0.0]]
