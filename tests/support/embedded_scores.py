"""What the toy generator is asked, and the log-probs that it answers with. Holds no test."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from toys import PROMPTS

from t2i_credit.models.embedded_model import EmbeddedModel

TEXTS = [p.text for p in PROMPTS]
NEGATIVES = [p.negative for p in PROMPTS]
BOTH = ("logprobs", "negative_logprobs")


def scores(model: EmbeddedModel, condition: Any, tokens: Tensor) -> Tensor:
    """(2, B, T) log-probs under both prompts."""
    with torch.no_grad():
        found = model(condition, tokens, want=BOTH)
    return torch.stack([found[name] for name in BOTH])


def some_tokens(count: int, model: EmbeddedModel) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(32, (count, model.grid[0] * model.grid[1]), generator=draw)
