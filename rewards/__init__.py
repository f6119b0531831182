"""Imported as `t2i_credit.rewards`, from this top-level folder: reward models, their table and their weighted sum.

A reward is built once by a function whose keyword-only parameters are its config schema, and is then called with
images (B, 3, h, w) in [0, 1] and B prompts. Heavy imports happen inside the builders. Rescales no reward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..interfaces import Prompt, RewardFn
from .aesthetic import aesthetic
from .clip import clip
from .geneval import geneval
from .preference import hpsv2, pickscore
from .remote import remote

REWARDS: dict[str, Callable[..., Any]] = {
    "geneval": geneval,
    "clip": clip,
    "aesthetic": aesthetic,
    "pickscore": pickscore,
    "hpsv2": hpsv2,
    "remote": remote,
}


@dataclass(frozen=True)
class WeightedReward:
    """The weighted sum of several rewards, which keeps every part.

    Attributes:
        parts: name to (weight, reward).
    """

    parts: Mapping[str, tuple[float, RewardFn]]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError if a part cannot judge one of the prompts."""
        for _, reward in self.parts.values():
            if hasattr(reward, "check"):
                reward.check(prompts)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, prompts: Sequence[Prompt]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (B,) and its parts before weighting {name: (B,)}, float32.

        A reward may answer with parts of its own, as this one does: they are kept as "name/part", and not added up.

        Raises:
            TrainingError: a part returns another number of rewards, or one that is not finite.
        """
        values: dict[str, Tensor] = {}
        total = torch.zeros(len(prompts), device=images.device)
        for name, (weight, reward) in self.parts.items():
            scored: Any = reward(images, prompts)
            part, details = scored if isinstance(scored, tuple) else (scored, {})
            part = part.float().to(images.device)
            if part.shape != (len(prompts),):
                shape = tuple(part.shape)
                raise TrainingError(f"reward {name}: shape {shape} for {len(prompts)} images")
            if not bool(torch.isfinite(part).all()):
                raise TrainingError(f"reward {name}: not finite for an image of this batch")
            values[name] = part
            for key, detail in details.items():
                values[f"{name}/{key}"] = detail.float().to(images.device)
            total = total + weight * part
        return total, values
