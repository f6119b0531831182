"""GCPO, Guidance Contrastive Policy Optimization (2605.29198): tokens matter on which two prompts disagree.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from .entry import CreditEntry
from .weights import ShapeKind, apply_strength, shaped

ContrastKind = Literal["k3", "abs", "gain", "symmetric", "full_kl"]

MAX_DIFFERENCE = 20.0  # nats; e^20 is still far inside float32
MAX_CONTRAST = 10.0  # as published: a few very unlikely tokens must not take all the credit

_CONTRASTS: dict[str, Callable[[Tensor], Tensor]] = {
    # e^d - 1 and cosh(d) - 1 as written would lose small contrasts to the rounding of 1
    "k3": lambda d: (d.expm1() - d).clamp(0.0, MAX_CONTRAST),
    "abs": lambda d: d.abs(),
    "gain": lambda d: (-d).clamp(min=0.0),
    "symmetric": lambda d: (2 * (d / 2).sinh().square()).clamp(max=MAX_CONTRAST),
}


@torch.no_grad()
def contrast(
    logprobs: Tensor | None,
    negative_logprobs: Tensor | None,
    mask: Tensor,
    *,
    kind: ContrastKind = "k3",
    full_kl: Tensor | None = None,
) -> Tensor:
    """How differently the positive and the negative prompt judge a token.

    With d = negative_logprobs - logprobs, clamped to +-20:
    k3: e^d - d - 1, at most 10, as published. abs: |d|. gain: max(-d, 0), how much the prompt raised
    the token. symmetric: cosh(d) - 1, at most 10. full_kl: the exact KL over all codes, as given.
    k3 is unsigned, and larger for tokens that fit the negative prompt better: 4.39 for d = 2, 1.14
    for d = -2. Source: Guidance Contrastive Policy Optimization, 2605.29198.

    Args:
        logprobs, negative_logprobs: (B, T) nats; not read (None will do) with kind "full_kl".
        mask: (B, T) bool.
        full_kl: (B, T) nats, for kind "full_kl" only.

    Returns:
        (B, T) float32, at least 0, 0 off the mask.

    Raises:
        UserError: an unknown kind, or an input that the kind needs is None.
    """
    if kind == "full_kl":
        if full_kl is None:
            raise UserError(
                "contrast kind full_kl needs full_kl, kept by a rollout that asks for it"
            )
        # rounding can leave a KL of 0 just below it; a code that only the positive prompt allows
        # gives infinity
        raw = full_kl.float().clamp(0.0, torch.finfo(torch.float32).max)
    elif kind in _CONTRASTS:
        if logprobs is None or negative_logprobs is None:
            raise UserError(f"contrast kind {kind} needs logprobs and negative_logprobs")
        difference = negative_logprobs.float() - logprobs.float()
        raw = _CONTRASTS[kind](difference.clamp(-MAX_DIFFERENCE, MAX_DIFFERENCE))
    else:
        allowed = ", ".join([*_CONTRASTS, "full_kl"])
        raise UserError(f"contrast kind is {kind!r}; allowed are {allowed}")
    return torch.where(mask, raw, 0.0)


def _assign(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    kind: ContrastKind = "k3",
    shape: ShapeKind = "power_rank",
    top: float = 0.4,
    mass: float = 0.8,
    temperature: float = 1.0,
    strength: float = 1.0,
) -> Tensor:
    evidence = contrast(
        fields.get("logprobs"),
        fields.get("negative_logprobs"),
        mask,
        kind=kind,
        full_kl=fields.get("full_kl"),
    )
    return apply_strength(
        shaped(evidence, mask, shape, top=top, mass=mass, temperature=temperature), mask, strength
    )


def _fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    if parameters.get("kind", "k3") == "full_kl":
        return frozenset({"full_kl"})
    return frozenset({"logprobs", "negative_logprobs"})


def shown_kind(parameters: Mapping[str, Any], full_kl: Tensor | None) -> ContrastKind:
    """The kind of contrast that a run shows: that of its credit's parameters if it can be had, or the published one."""
    kind: Any = parameters.get("kind")
    known = kind in get_args(ContrastKind) and not (kind == "full_kl" and full_kl is None)
    return kind if known else "k3"


GUIDANCE_CONTRAST = CreditEntry(
    assign=_assign,
    description="tokens that the positive and the negative prompt judge differently",
    paper="Guidance Contrastive Policy Optimization, 2605.29198",
    needs=_fields,
)
