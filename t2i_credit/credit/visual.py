"""Visual (ours): tokens matter whose choice decides what the picture looks like.

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
from torch.nn import functional as F

from ..errors import UserError
from .entry import CreditEntry
from .weights import ROUNDING, ShapeKind, apply_strength, shaped

VisualKind = Literal["spread", "shift", "both", "figure"]
_FIELDS: dict[str, frozenset[str]] = {
    "spread": frozenset({"code_spread"}),
    "shift": frozenset({"code_shift"}),
    "both": frozenset({"code_spread", "code_shift"}),
    "figure": frozenset({"code_spread", "figure_distance"}),
}


@torch.no_grad()
def visual_evidence(fields: Mapping[str, Tensor], mask: Tensor, *, kind: VisualKind) -> Tensor:
    """How differently the picture could have gone on at a token.

    spread: 1 - |E e|^2 over the codes' unit vectors e, how different the likely codes look. shift: |E e - E- e|^2,
    how far the negative prompt would have moved the mean look. both: their product, tokens that are open and on which
    the prompts disagree. figure: spread times the distance of the token's look from the picture's mean look, tokens
    that are open and stand out from the ground.

    Args:
        fields: code_spread, code_shift (rollout/logprobs.py), `figure_distance`: (B, T), those of the kind.
        mask: (B, T) bool.

    Returns:
        (B, T) float32, at least 0, 0 off the mask.

    Raises:
        UserError: an unknown kind, or a field that the kind needs is missing.
    """
    if kind not in _FIELDS:
        raise UserError(f"visual kind is {kind!r}; allowed are {', '.join(_FIELDS)}")
    found = torch.ones(mask.shape, device=mask.device)
    for name in sorted(_FIELDS[kind]):
        if name not in fields:
            raise UserError(f"visual kind {kind} needs {name}")
        found = found * fields[name].float()
    return torch.where(mask, found, 0.0)


@torch.no_grad()
def figure_distance(vectors: Tensor) -> Tensor:
    """How unlike the picture's mean look a token looks: half the distance of its unit vector from the mean's direction.

    Most of a picture is ground, so its mean look is nearly the ground's, and what stands out is the figure.

    Args:
        vectors: (B, T, C) code vectors of the sampled tokens.

    Returns:
        (B, T) float32 in [0, 1]; 0 everywhere for a picture of one code.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    mean = F.normalize(unit.mean(1, keepdim=True), dim=-1)
    apart = (1 - (unit * mean).sum(-1)) / 2
    return torch.where(apart > ROUNDING, apart, 0.0).sqrt()


def _fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    return _FIELDS.get(parameters.get("kind", "spread"), frozenset())


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    kind: VisualKind = "spread",
    shape: ShapeKind = "power_rank",
    top: float = 0.4,
    mass: float = 0.8,
    temperature: float = 1.0,
    strength: float = 1.0,
) -> Tensor:
    evidence = visual_evidence(fields, mask, kind=kind)
    return apply_strength(
        shaped(evidence, mask, shape, top=top, mass=mass, temperature=temperature), mask, strength
    )


VISUAL = CreditEntry(
    assign=_assign,
    description="tokens whose choice decides what the picture looks like",
    paper="ours",
    needs=_fields,
)
