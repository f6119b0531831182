"""How many images of a model a reward judges in a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ...api.parts import Parts
from .timing import Row, alone, seconds

JUDGED = 32  # images of a batch


@torch.no_grad()
def reward_rows(
    made: Parts, rewards: Mapping[str, Callable[..., Any]], repeats: int, done: Callable[[], None]
) -> list[Row]:
    """Images of random codes, judged by each reward alone."""
    model, prompts = made.model, made.prompts
    tokens = model.grid[0] * model.grid[1]
    asked = [prompts[i % len(prompts)] for i in range(JUDGED)]
    draw = torch.Generator().manual_seed(0)

    def drawn() -> Tensor:
        """Other images at each call: a reward may remember those that it has seen."""
        codes = torch.randint(model.codebook_size, (JUDGED, tokens), generator=draw)
        return cast(Tensor, model.decode(codes.to(model.device)).float())

    def judged(reward: Callable[..., Any]) -> float:
        images = drawn()
        return JUDGED / seconds(model.device, lambda: reward(images, asked))

    size = " x ".join(map(str, drawn().shape[2:]))
    rows = []
    for name, reward in rewards.items():
        judged(reward)  # what is set up once
        rates = []
        for _ in range(repeats):
            rates.append(judged(reward))
            done()
        what = f"reward {name}: images of {size} pixels judged, {JUDGED} at a time"
        rows.append(alone(what, "images/s", rates))
    return rows
