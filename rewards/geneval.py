"""The GenEval verdict as a reward: 1 for an image that fulfils its record, 0 otherwise, or the share of its checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import PromptError
from ..geneval import Detection, judge, validate_spec
from ..interfaces import Prompt
from ..pixels import to_uint8

Detect = Callable[[Any], list[dict[str, list[Detection]]]]


class GenevalReward:
    """Range [0, 1]. Needs a `spec` with every prompt.

    Attributes:
        detect: images (B, h, w, 3) uint8 to one {class: detections} per image.
        classes: the class names that `detect` knows.
        partial: the share of passed checks instead of the strict verdict.
    """

    def __init__(self, detect: Detect, classes: Sequence[str], partial: bool) -> None:
        self.detect, self.classes, self.partial = detect, classes, partial

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises PromptError if a prompt has no record, or one that the detector cannot judge."""
        for prompt in prompts:
            where = f"prompt {prompt.text!r}"
            validate_spec(_record(prompt), classes=self.classes, where=where)

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        found = self.detect(to_uint8(images))
        verdicts = [judge(d, _record(p)) for d, p in zip(found, prompts, strict=True)]
        values = [v.score if self.partial else float(v.correct) for v in verdicts]
        return torch.tensor(values, dtype=torch.float32)


def _record(prompt: Prompt) -> dict[str, Any]:
    """The prompt's GenEval record, which it must have."""
    if prompt.spec is None:
        raise PromptError(
            f"prompt {prompt.text!r}: no spec; the geneval reward needs a GenEval record"
        )
    return dict(prompt.spec)


def geneval(*, detector: Literal["shapes"] = "shapes", partial: bool = False) -> GenevalReward:
    """Builds the reward. `detector`: who finds the objects; `partial`: the share of passed checks in [0, 1]."""
    from ..shapes.detector import classes, detect

    return GenevalReward(detect, classes(), partial)
