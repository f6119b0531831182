"""The batch on which credit is tested: three prompts of four samples, and their advantages. Holds no test."""

from __future__ import annotations

import torch

from t2i_credit.advantages import group_normalized

PROMPTS, GROUP_SIZE, TOKENS = 3, 4, 35  # 5 x 7 tokens
BATCH = PROMPTS * GROUP_SIZE


def advantages_of() -> torch.Tensor:
    return group_normalized(torch.randn(BATCH, generator=torch.Generator().manual_seed(2)), 4)
