"""Credit: how much of a sample's advantage each of its image tokens gets. Never sees the picture.

Shapes: B samples, T image tokens, V codebook entries; mask (B, T) bool, True = counts in the loss.
Every assigner returns (B, T) float32, detached, 0 off the mask, mean 1 over the True positions of
each row (a row without any: all 0), so changing the assigner does not change the learning rate, and
`uniform` is plain GRPO bit for bit.

To add one: a file with a function `(fields, mask, advantages, *, knobs with defaults, strength) -> (B, T)` and its
entry, and a line in CREDIT; what its knobs mean goes into config/describe.py, a new field into fields.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .critical import CRITICAL_TOKENS
from .dgpo import DISTRIBUTION_GUIDED
from .entropy import ENTROPY_GUIDED, ENTROPY_RANK, TOP_ENTROPY
from .entry import CreditEntry
from .gcpo import GUIDANCE_CONTRAST
from .reward_map import REWARD_MAP
from .stage import SIMILARITY
from .value import VALUE
from .visual import VISUAL
from .weights import apply_strength, uniform


def _assign(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, strength: float = 1.0
) -> Tensor:
    return apply_strength(uniform(mask), mask, strength)


UNIFORM = CreditEntry(
    assign=_assign,
    description="every token gets the sample's whole advantage",
    paper="GRPO, 2402.03300",
    even=True,
    refresh="it never changes",
)

CREDIT: dict[str, CreditEntry] = {
    "uniform": UNIFORM,
    "guidance_contrast": GUIDANCE_CONTRAST,
    "top_entropy": TOP_ENTROPY,
    "entropy_rank": ENTROPY_RANK,
    "entropy_guided": ENTROPY_GUIDED,
    "visual": VISUAL,
    "distribution_guided": DISTRIBUTION_GUIDED,
    "critical_tokens": CRITICAL_TOKENS,
    "similarity": SIMILARITY,
    "value": VALUE,
    "reward_map": REWARD_MAP,
}
