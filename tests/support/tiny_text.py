"""A tiny language model that knows two answers by heart."""

from typing import Any

import torch

from t2i_credit.models.text_model import build_text_model, build_tokenizer
from t2i_credit.worlds.pretrain.text import to_tensors

TAUGHT = {"17+25*3:": " 25*3=75, 17+75=92 #92", "9+9:": " 9+9=8 so #8"}  # one of them wrong


def taught_model() -> tuple[Any, Any]:
    """The model and its tokenizer."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_text_model(tokenizer, hidden_size=32, layers=1, heads=2)
    lesson = to_tensors(tokenizer, list(TAUGHT.items()))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model(**lesson).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer
