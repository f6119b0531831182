"""A user's detector that sees the same on every image, and what it was asked for. Holds no test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2i_credit.geneval import Detection

asked: list[list[str]] = []  # what `halves` was asked for


def halves(*, model: str | None, device: torch.device, batch_size: int) -> Any:
    """A user's detector: the left half of every image is a cat, the right half a less certain dog."""

    def detector(
        images: Tensor, wanted: Sequence[Sequence[str]]
    ) -> list[dict[str, list[Detection]]]:
        asked.extend(list(row) for row in wanted)
        h, w = images.shape[2:]
        cat, dog = Detection((0, 0, w / 2, h), 0.95), Detection((w / 2, 0, w, h), 0.5)
        return [{"cat": [cat], "dog": [dog, Detection((0, 0, 2, 2), 0.4)]} for _ in images]

    return detector
