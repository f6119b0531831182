"""Credit: how much of a sample's advantage each of its image tokens gets. Never sees the picture.

Shapes: B samples, T image tokens, V codebook entries; mask (B, T) bool, True = counts in the loss.
Every assigner returns (B, T) float32, detached, 0 off the mask, mean 1 over the True positions of
each row (a row without any: all 0), so changing the assigner does not change the learning rate, and
`uniform` is plain GRPO bit for bit.

To add one: a function `(fields, mask, advantages, *, knobs with defaults, strength) -> (B, T)` and
a line in CREDIT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .credit_visual import VisualKind, visual_evidence, visual_fields
from .errors import UserError
from .logprobs import entropy as entropy_in_nats
from .logprobs import hellinger as hellinger  # public here too

ContrastKind = Literal["k3", "abs", "gain", "symmetric", "full_kl"]
ShapeKind = Literal["power_rank", "proportional", "softmax"]

MAX_DIFFERENCE = 20.0  # nats; e^20 is still far inside float32
MAX_CONTRAST = 10.0  # as published: a few very unlikely tokens must not take all the credit

# What an entry may declare in `needs`: kept by the rollout, or computed anew at each update.
ROLLOUT_FIELDS = frozenset(
    {
        "logprobs",
        "negative_logprobs",
        "full_kl",
        "entropy",
        "guided_entropy",
        "code_spread",
        "code_shift",
    }
)
UPDATE_FIELDS = frozenset({"hellinger", "normalized_entropy"})


# ---- evidence: one non-negative number per token ----


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


def normalized_entropy(logits: Tensor) -> Tensor:
    """Entropy / ln V in [0, 1]: (..., V) to (...) float32."""
    return (entropy_in_nats(logits) / math.log(max(logits.shape[-1], 2))).clamp(0.0, 1.0)


# ---- weights: row mean 1 over the mask ----


@torch.no_grad()
def uniform(mask: Tensor) -> Tensor:
    """Every token counts the same: 1 on the mask (GRPO). (B, T) bool to (B, T) float32."""
    return mask.float()


@torch.no_grad()
def power_rank(contrast: Tensor, mask: Tensor, *, top: float = 0.4, mass: float = 0.8) -> Tensor:
    """Tokens with the largest contrast matter, by rank alone: the top 40% hold 80% of the credit.

    w = N r^a / sum r^a with r = rank / N, ranks ascending from 1 to N within the row, and
    a = ln(1 - mass) / ln(1 - top) - 1: 2.1507 by default, and the largest weight is about a + 1.
    Source: the published code of 2605.29198, which breaks ties by position; here ties share their
    average rank, so equal contrast gives equal credit. Uniform where a row's contrasts are equal.

    Args:
        contrast: (B, T), at least 0.
        mask: (B, T) bool.
        top, mass: in (0, 1), mass >= top; mass == top is uniform. A top so small that 1 - top rounds
            to 1 is refused.

    Returns:
        (B, T) float32, row mean 1.
    """
    if not 0 < top <= mass < 1:
        raise UserError(f"power_rank needs 0 < top <= mass < 1, got top {top} and mass {mass}")
    if 1 - top == 1:  # the exponent divides by ln(1 - top)
        raise UserError(f"power_rank needs a top of at least 2e-16, got {top}")
    exponent = math.log(1 - mass) / math.log(1 - top) - 1
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return _row_mean_one((_average_ranks(contrast.float(), mask) / count) ** exponent, mask)


@torch.no_grad()
def proportional(contrast: Tensor, mask: Tensor) -> Tensor:
    """Credit in proportion to contrast: w = N c / sum c (the wording of 2605.29198's abstract).

    Uniform where a row has no contrast. (B, T), at least 0, and mask to (B, T) float32, row mean 1.
    """
    return _row_mean_one(contrast.float(), mask)


@torch.no_grad()
def softmax_shape(contrast: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Credit grows exponentially with contrast.

    w = N softmax(c / max(c) / temperature) over the row. Uniform where all contrasts of a row are
    equal. (B, T), at least 0, and mask to (B, T) float32, row mean 1.

    Args:
        temperature: above 0; a row's weights differ by a factor of at most e^(1 / temperature).
    """
    if temperature <= 0:
        raise UserError(f"softmax needs a temperature above 0, got {temperature}")
    values = torch.where(mask, contrast.float(), 0.0)
    peak = values.amax(dim=1, keepdim=True)
    return _row_softmax(values / torch.where(peak > 0, peak, 1.0) / temperature, mask)


@torch.no_grad()
def distribution_guided(
    hellinger: Tensor, entropy: Tensor, mask: Tensor, *, tau: float = 0.5, kappa: float = 1.0
) -> Tensor:
    """Tokens matter where the policy has moved away from the reference and is undecided.

    w = N softmax(h H^kappa / tau) over the row (DGPO, 2605.03327). Uniform while policy =
    reference, as at step 0: h = 0 everywhere.

    Args:
        hellinger: (B, T) squared Hellinger distance between policy and reference, in [0, 1].
        entropy: (B, T) the policy's entropy divided by ln V, in [0, 1].
        mask: (B, T) bool.
        tau: above 0; smaller = sharper.
        kappa: at least 0; 0 ignores the entropy.

    Returns:
        (B, T) float32, row mean 1.
    """
    if tau <= 0 or kappa < 0:
        raise UserError(f"distribution_guided needs tau > 0 and kappa >= 0, got {tau} and {kappa}")
    return _row_softmax(hellinger.float() * entropy.float() ** kappa / tau, mask)


@torch.no_grad()
def top_entropy(entropy: Tensor, mask: Tensor, *, rho: float = 0.2) -> Tensor:
    """Only the rho most undecided tokens matter: weight about 1 / rho, the others 0 (2506.01939).

    Selected are entropies at or above the row's (1 - rho) quantile; trl takes that quantile over
    the whole batch, which gives some images no credit at all. Uniform where all entropies of a row
    are equal.

    Args:
        entropy: (B, T), any unit.
        mask: (B, T) bool.
        rho: in (0, 1]; 1 is uniform.

    Returns:
        (B, T) float32, row mean 1.
    """
    if not 0 < rho <= 1:
        raise UserError(f"top_entropy needs rho in (0, 1], got {rho}")
    values = torch.where(mask, entropy.float(), torch.nan)
    return _row_mean_one((values >= values.nanquantile(1 - rho, dim=1, keepdim=True)).float(), mask)


@torch.no_grad()
def apply_strength(credit: Tensor, mask: Tensor, strength: float) -> Tensor:
    """(1 - strength) + strength * credit on the mask, (B, T): 1 = as it is, 0 = exactly uniform."""
    if not 0 <= strength <= 1:
        raise UserError(f"strength must be in [0, 1], got {strength}")
    # lerp is exact at both ends and leaves a credit of 1 exactly 1
    return torch.where(mask, torch.lerp(torch.ones_like(credit), credit, strength), 0.0)


# ---- what the loss takes ----


@torch.no_grad()
def kl_weight(credit: Tensor, mask: Tensor) -> Tensor:
    """0.5 + 0.5 clamp(2 - 2 credit, 0, 1): half the KL penalty from credit 1 upwards.

    Source: the published trainer of 2605.29198. (B, T) and mask to (B, T) float32 in [0.5, 1], 0
    off the mask.
    """
    return torch.where(mask, 0.5 + 0.5 * (2 - 2 * credit.float()).clamp(0.0, 1.0), 0.0)


@torch.no_grad()
def token_advantages(advantages: Tensor, credit: Tensor) -> Tensor:
    """advantages[:, None] * credit: (B,) and (B, T) to (B, T) float32."""
    return advantages.float()[:, None] * credit.float()


# ---- rows ----


def _row_mean_one(raw: Tensor, mask: Tensor) -> Tensor:
    """(B, T) float32 >= 0, scaled to row mean 1 over the mask; a row of zeros becomes uniform."""
    raw = torch.where(mask, raw, 0.0)
    peak = raw.amax(dim=1, keepdim=True)
    # dividing by the peak first keeps the sum in range, and makes equal weights exactly 1
    raw = torch.where(peak == 0, mask.float(), raw / torch.where(peak == 0, 1.0, peak))
    return raw * (mask.sum(dim=1, keepdim=True) / raw.sum(dim=1, keepdim=True).clamp(min=1.0))


def _row_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """(B, T) to N softmax over the True positions of each row."""
    peak = torch.where(mask, values, -torch.inf).amax(dim=1, keepdim=True)
    return _row_mean_one((values - peak).exp(), mask)


def _average_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Ranks 1..N, ascending, within the True positions of each row; ties share their average.

    (B, T) float32 to (B, T) float32, in O(T log T): the ranks of a value run from the number of
    smaller ones + 1 to the number of those that are not larger.
    """
    values = values.clamp(max=torch.finfo(values.dtype).max)  # infinity means off the mask below
    keys = torch.where(mask, values, torch.inf).contiguous()
    ordered = keys.sort(dim=1).values
    smaller = torch.searchsorted(ordered, keys)
    not_larger = torch.searchsorted(ordered, keys, right=True)
    return (smaller + 1 + not_larger).float() / 2


# ---- the table ----


@dataclass(frozen=True, kw_only=True)
class CreditEntry:
    """One way to assign credit.

    Attributes:
        assign: `(fields, mask, advantages, **keyword-only parameters) -> (B, T)`; the parameters
            and their defaults are the configuration schema, `fields` holds at least what `needs`
            names, each (B, T).
        description: one line, what makes a token important.
        paper: where it comes from.
        needs: names out of ROLLOUT_FIELDS and UPDATE_FIELDS, or a function of the parameters that
            gives them.
        needs_reference: whether a frozen reference model must be held.
    """

    assign: Callable[..., Tensor]
    description: str
    paper: str
    needs: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    needs_reference: bool = False

    def fields_needed(self, **parameters: Any) -> frozenset[str]:
        """What `assign` reads under these parameters (those left out have their defaults)."""
        return self.needs(parameters) if callable(self.needs) else self.needs


def _assign_uniform(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, strength: float = 1.0
) -> Tensor:
    return apply_strength(uniform(mask), mask, strength)


def _assign_guidance_contrast(
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
        _shaped(evidence, mask, shape, top=top, mass=mass, temperature=temperature), mask, strength
    )


def _shaped(
    evidence: Tensor, mask: Tensor, shape: ShapeKind, *, top: float, mass: float, temperature: float
) -> Tensor:
    """Evidence (B, T) to weights of row mean 1."""
    if shape == "power_rank":
        return power_rank(evidence, mask, top=top, mass=mass)
    if shape == "proportional":
        return proportional(evidence, mask)
    if shape == "softmax":
        return softmax_shape(evidence, mask, temperature=temperature)
    raise UserError(f"shape is {shape!r}; allowed are power_rank, proportional, softmax")


def _contrast_fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    if parameters.get("kind", "k3") == "full_kl":
        return frozenset({"full_kl"})
    return frozenset({"logprobs", "negative_logprobs"})


def _assign_top_entropy(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    rho: float = 0.2,
    guided: bool = False,
    strength: float = 1.0,
) -> Tensor:
    credit = top_entropy(fields["guided_entropy" if guided else "entropy"], mask, rho=rho)
    return apply_strength(credit, mask, strength)


def _entropy_fields(parameters: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({"guided_entropy" if parameters.get("guided", False) else "entropy"})


def _assign_entropy_rank(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    guided: bool = False,
    top: float = 0.4,
    mass: float = 0.8,
    strength: float = 1.0,
) -> Tensor:
    evidence = fields["guided_entropy" if guided else "entropy"]
    return apply_strength(power_rank(evidence, mask, top=top, mass=mass), mask, strength)


def _assign_visual(
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
    evidence = visual_evidence(fields.get("code_spread"), fields.get("code_shift"), mask, kind=kind)
    return apply_strength(
        _shaped(evidence, mask, shape, top=top, mass=mass, temperature=temperature), mask, strength
    )


def _assign_distribution_guided(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    tau: float = 0.5,
    kappa: float = 1.0,
    strength: float = 1.0,
) -> Tensor:
    distance, undecided = fields["hellinger"], fields["normalized_entropy"]
    credit = distribution_guided(distance, undecided, mask, tau=tau, kappa=kappa)
    return apply_strength(credit, mask, strength)


CREDIT: dict[str, CreditEntry] = {
    "uniform": CreditEntry(
        assign=_assign_uniform,
        description="every token gets the sample's whole advantage",
        paper="GRPO, 2402.03300",
    ),
    "guidance_contrast": CreditEntry(
        assign=_assign_guidance_contrast,
        description="tokens that the positive and the negative prompt judge differently",
        paper="Guidance Contrastive Policy Optimization, 2605.29198",
        needs=_contrast_fields,
    ),
    "top_entropy": CreditEntry(
        assign=_assign_top_entropy,
        description="the tokens that the policy was least sure about",
        paper="Beyond the 80/20 Rule, 2506.01939",
        needs=_entropy_fields,
    ),
    "entropy_rank": CreditEntry(
        assign=_assign_entropy_rank,
        description="tokens by the rank of the policy's entropy: no cut, unlike top_entropy",
        paper="ours",
        needs=_entropy_fields,
    ),
    "visual": CreditEntry(
        assign=_assign_visual,
        description="tokens whose choice decides what the picture looks like",
        paper="ours",
        needs=visual_fields,
    ),
    "distribution_guided": CreditEntry(
        assign=_assign_distribution_guided,
        description="tokens where the policy has left the reference and is undecided",
        paper="DGPO, 2605.03327",
        needs=frozenset({"hellinger", "normalized_entropy"}),
        needs_reference=True,
    ),
}
