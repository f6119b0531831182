"""Evidence of ours: how much a token decides what the picture looks like. Turns nothing into weights.

An image tokenizer has many codes that look alike. A distribution over them has a high entropy, and two prompts can
disagree about them widely, although the choice decides nothing: most of what entropy and contrast find lies on such
codes, on plain background above all. Here codes are compared by their vectors, so what looks alike counts as the same.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import UserError

VisualKind = Literal["spread", "shift", "both"]
_FIELDS: dict[str, frozenset[str]] = {
    "spread": frozenset({"code_spread"}),
    "shift": frozenset({"code_shift"}),
    "both": frozenset({"code_spread", "code_shift"}),
}


@torch.no_grad()
def visual_evidence(
    code_spread: Tensor | None, code_shift: Tensor | None, mask: Tensor, *, kind: VisualKind
) -> Tensor:
    """How differently the picture could have gone on at a token.

    spread: 1 - |E e|^2 over the codes' unit vectors e, how different the likely codes look. shift: |E e - E- e|^2,
    how far the negative prompt would have moved the mean look. both: their product, tokens that are open and on which
    the prompts disagree.

    Args:
        code_spread, code_shift: (B, T) as `logprobs.py` computes them; None where the kind does not read it.
        mask: (B, T) bool.

    Returns:
        (B, T) float32, at least 0, 0 off the mask.

    Raises:
        UserError: an unknown kind, or an input that the kind needs is None.
    """
    if kind not in _FIELDS:
        raise UserError(f"visual kind is {kind!r}; allowed are {', '.join(_FIELDS)}")
    given = {"code_spread": code_spread, "code_shift": code_shift}
    found = torch.ones(mask.shape, device=mask.device)
    for name in sorted(_FIELDS[kind]):
        value = given[name]
        if value is None:
            raise UserError(f"visual kind {kind} needs {name}, kept by a rollout that asks for it")
        found = found * value.float()
    return torch.where(mask, found, 0.0)


def visual_fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    """The rollout fields that the kind reads."""
    return _FIELDS.get(parameters.get("kind", "spread"), frozenset())
