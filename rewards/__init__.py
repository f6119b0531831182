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

from ..interfaces import Prompt, RewardFn, plugin_errors, plugin_values
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

    def check(self, prompts: Sequence[Prompt]) -> list[str]:
        """Lines about what the parts do not read of the prompts.

        Raises:
            UserError: a part cannot judge one of them.
        """
        checks = [reward.check for _, reward in self.parts.values() if hasattr(reward, "check")]
        return [line for check in checks for line in check(prompts) or ()]

    @torch.no_grad()
    def __call__(
        self, images: Tensor, prompts: Sequence[Prompt]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (B,) and its parts before weighting {name: (B,)}, float32.

        A reward may answer with parts of its own, as this one does: they are kept as "name/part", and not added up.

        Raises:
            TrainingError: a part returns something else than one finite number per image.
        """
        values: dict[str, Tensor] = {}
        total = torch.zeros(len(prompts), device=images.device)
        for name, (weight, reward) in self.parts.items():
            values |= judged(name, reward, images, prompts)
            total = total + weight * values[name]
        return total, values


def judged(
    name: str, reward: RewardFn, images: Tensor, prompts: Sequence[Prompt]
) -> dict[str, Tensor]:
    """What one part says, {name: (B,)} with the parts of its own that it answers with; see `WeightedReward`."""
    if ":" not in name:
        scored: Any = reward(images, prompts)
    else:  # package.module:function
        with plugin_errors(f"reward {name}"):
            scored = reward(images.clone(), prompts)  # it may normalise in place
    part, details = scored if isinstance(scored, tuple) else (scored, {})
    named = {name: part, **{f"{name}/{key}": detail for key, detail in details.items()}}
    return {
        key: plugin_values(found, (len(prompts),), f"reward {key}").to(images.device)
        for key, found in named.items()
    }
