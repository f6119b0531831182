"""Top-entropy credit by hand."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.credit.entropy import top_entropy
from t2i_credit.errors import UserError


def test_top_entropy_takes_its_quantile_per_row():
    # 10 tokens, rho = 0.2: the two largest of each row get 10 / 2 = 5, however certain the row is
    entropy = torch.stack([torch.arange(10.0), torch.arange(10.0).flip(0) / 1000])
    credit = top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.2)
    assert credit[0].tolist() == [0.0] * 8 + [5.0] * 2
    assert credit[1].tolist() == [5.0] * 2 + [0.0] * 8
    with pytest.raises(UserError, match="rho"):
        top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.0)
