"""Functions of a user's for credit, advantages and models: right in another form than tensors, or wrong. Holds no test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toys import tiny_model


def credit_of(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, kind: str = "even"
) -> Any:
    """Credit of the kind that is asked for."""
    even = mask.float()
    if kind == "off the mask":
        even[~mask] = torch.nan
        return even
    half = torch.zeros_like(even)
    half[:, ::2] = 2.0  # mean 1, as there are as many even places as odd ones
    return {
        "even": even,
        "lists": even.tolist(),
        "array": even.numpy().astype(np.float64),
        "column": even[:, :1],
        "nan": even * torch.nan,
        "text": "even",
        "nothing": None,
        "thousand": even * 1000,
        "negative": half * 2 - even,  # 3 and -1 by turns: mean 1
    }[kind]


def advantage_of(rewards: Tensor, group_size: int, *, kind: str = "rewards") -> Any:
    """Advantages of the kind that is asked for."""
    return {
        "rewards": rewards,
        "lists": rewards.tolist(),
        "groups": rewards.reshape(-1, group_size),
        "infinite": rewards + torch.inf,
    }[kind]


def whole_model() -> nn.Module:
    """A generator that offers all that is asked for."""
    return tiny_model()


def dictionary() -> dict[str, Any]:
    """No model."""
    return {}


class Blind(nn.Module):
    """A model without anything of a generator but its grid."""

    grid = (2, 2)

    def forward(self) -> None:
        """Does nothing."""


def blind_model() -> nn.Module:
    """A module that is no generator."""
    return Blind()


def failing() -> Any:
    """A reward that raises."""

    def reward(images: Tensor, prompts: Any) -> Tensor:
        raise ValueError("two\nlines")

    return reward


def in_place() -> Any:
    """A reward that normalises the images where they lie."""

    def reward(images: Tensor, prompts: Any) -> Tensor:
        images -= 0.5
        images /= 0.5
        return images.mean((1, 2, 3))

    return reward


def one_argument() -> object:
    """Builds a reward that takes no prompts."""
    return lambda images: images
