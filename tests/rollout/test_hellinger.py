"""Squared Hellinger distances by hand."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_credit.rollout.logprobs import hellinger


def test_squared_hellinger_distance_of_two_coins():
    # p = 1/2, 1/2 and q = 0.9, 0.1: 1 - sqrt(0.45) - sqrt(0.05) = 1 - 0.670820 - 0.223607
    p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.9, 0.1]]]).log()
    assert hellinger(p + 3, q - 2).item() == pytest.approx(0.105573, abs=1e-6)


def test_squared_hellinger_distance_of_disjoint_distributions_is_one():
    p, q = torch.tensor([[[0.0, -math.inf]]]), torch.tensor([[[-math.inf, 0.0]]])
    assert hellinger(p, q).item() == 1.0


def test_small_hellinger_distances_do_not_cancel():
    # q tilts p = 1/2, 1/2 by 1e-4: h = e^2 / 8 + O(e^4) for q = (1 +- 1e-4) / 2, 1.25e-9
    q = torch.tensor([[[0.5 * (1 + 1e-4), 0.5 * (1 - 1e-4)]]], dtype=torch.float64).log()
    assert hellinger(torch.zeros(1, 1, 2), q.float()).item() == pytest.approx(1.25e-9, rel=2e-2)
