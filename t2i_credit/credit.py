"""Credit: how much of a sample's advantage each of its image tokens gets. Never sees the picture.

Shapes: B samples, T image tokens, V codebook entries; mask (B, T) bool, True = counts in the loss.
Every assigner returns (B, T) float32, detached, 0 off the mask, mean 1 over the True positions of
each row (a row without any: all 0), so changing the assigner does not change the learning rate, and
`uniform` is plain GRPO bit for bit.

To add one: a function `(fields, mask, advantages, *, knobs with defaults, strength) -> (B, T)` and
a line in CREDIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .credit_contrast import ContrastKind as ContrastKind
from .credit_contrast import ShapeKind, contrast, power_rank, proportional, softmax_shape
from .credit_group import critical_mask, critical_tokens, similarity, similarity_kl_weight
from .credit_uncertainty import distribution_guided, top_entropy
from .credit_uncertainty import normalized_entropy as normalized_entropy
from .credit_visual import VisualKind, visual_evidence, visual_fields
from .errors import UserError
from .logprobs import hellinger as hellinger  # public here too

# What an entry may declare in `needs`, each (B, T): kept by the rollout; of the rollout's whole images and groups; computed anew at
# each update (policy_logprobs and ref_logprobs: of the taken tokens, in the policy's own form).
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
GROUP_FIELDS = frozenset(
    {"group_similarity", "opposed_similarity", "entropy_gradient", "figure_distance"}
)
UPDATE_FIELDS = frozenset({"hellinger", "normalized_entropy", "policy_logprobs", "ref_logprobs"})


# ---- weights: row mean 1 over the mask ----


@torch.no_grad()
def uniform(mask: Tensor) -> Tensor:
    """Every token counts the same: 1 on the mask (GRPO). (B, T) bool to (B, T) float32."""
    return mask.float()


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


# ---- the table ----


def _kl_weights_of_credit(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    return kl_weight(credit, mask)


@dataclass(frozen=True, kw_only=True)
class CreditEntry:
    """One way to assign credit.

    Attributes:
        assign: `(fields, mask, advantages, **keyword-only parameters) -> (B, T)`; the parameters
            and their defaults are the configuration schema, `fields` holds at least what `needs`
            names, each (B, T).
        description: one line, what makes a token important.
        paper: where it comes from.
        needs: names out of ROLLOUT_FIELDS, GROUP_FIELDS and UPDATE_FIELDS, or a function of the
            parameters that gives them.
        needs_reference: whether a frozen reference model must be held.
        kl_weights: `(fields, credit, mask, parameters) -> (B, T)`, the factors on the KL term under
            `loss.kl_weight: credit`.
    """

    assign: Callable[..., Tensor]
    description: str
    paper: str
    needs: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    needs_reference: bool = False
    kl_weights: Callable[..., Tensor] = _kl_weights_of_credit

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
    evidence = visual_evidence(fields, mask, kind=kind)
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


def _assign_critical_tokens(
    fields: Mapping[str, Tensor],
    mask: Tensor,
    advantages: Tensor,
    *,
    fraction: float = 0.1,
    strength: float = 1.0,
) -> Tensor:
    credit = critical_tokens(
        fields["entropy_gradient"],
        fields["group_similarity"],
        fields["policy_logprobs"],
        fields["ref_logprobs"],
        mask,
        fraction=fraction,
    )
    return apply_strength(credit, mask, strength)


def _critical_kl_weights(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    """1 on the critical tokens and 0 elsewhere, whatever the strength."""
    edges, alike = fields["entropy_gradient"], fields["group_similarity"]
    return critical_mask(edges, alike, mask, fraction=parameters.get("fraction", 0.1)).float()


def _assign_similarity(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, strength: float = 1.0
) -> Tensor:
    return apply_strength(similarity(fields["opposed_similarity"], mask), mask, strength)


def _similarity_kl_weights(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    return similarity_kl_weight(fields["opposed_similarity"], mask)


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
    "critical_tokens": CreditEntry(
        assign=_assign_critical_tokens,
        description="the first tokens, those on edges of the entropy, those in which a group differs",
        paper="Group Critical-token Policy Optimization, 2509.22485",
        needs=frozenset(
            {
                "guided_entropy",  # which entropy_gradient is made of
                "entropy_gradient",
                "group_similarity",
                "policy_logprobs",
                "ref_logprobs",
            }
        ),
        needs_reference=True,
        kl_weights=_critical_kl_weights,
    ),
    "similarity": CreditEntry(
        assign=_assign_similarity,
        description="tokens unlike those of images of the same prompt that fared otherwise",
        paper="STAGE, 2509.25027",
        needs=frozenset({"opposed_similarity"}),
        kl_weights=_similarity_kl_weights,
    ),
}
