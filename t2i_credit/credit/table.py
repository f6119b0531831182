"""Credit: how much of a sample's advantage each of its image tokens gets. Never sees the picture.

Shapes: B samples, T image tokens, V codebook entries; mask (B, T) bool, True = counts in the loss.
Every assigner returns (B, T) float32, detached, 0 off the mask, mean 1 over the True positions of
each row (a row without any: all 0), so changing the assigner does not change the learning rate, and
`uniform` is plain GRPO bit for bit.

To add one: a function `(fields, mask, advantages, *, knobs with defaults, strength) -> (B, T)` and
a line in CREDIT.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .critical import _assign_critical_tokens, _critical_kl_weights
from .dgpo import _assign_distribution_guided
from .entropy import _assign_entropy_rank, _assign_top_entropy, _entropy_fields
from .entry import CreditEntry
from .gcpo import _assign_guidance_contrast, _contrast_fields
from .stage import _assign_similarity, _similarity_kl_weights
from .visual import _assign_visual, visual_fields
from .weights import apply_strength, uniform


def _assign_uniform(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, strength: float = 1.0
) -> Tensor:
    return apply_strength(uniform(mask), mask, strength)


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
