"""Credit: how much of a sample's advantage each of its image tokens gets. Every method is a file; `table` lists them."""

from ..rollout.logprobs import hellinger
from .dgpo import distribution_guided, normalized_entropy
from .entropy import top_entropy
from .entry import CreditEntry, kl_weight, token_advantages
from .gcpo import ContrastKind, contrast
from .table import CREDIT
from .weights import apply_strength, power_rank, proportional, softmax_shape, uniform

__all__ = [
    "CREDIT",
    "ContrastKind",
    "CreditEntry",
    "apply_strength",
    "contrast",
    "distribution_guided",
    "hellinger",
    "kl_weight",
    "normalized_entropy",
    "power_rank",
    "proportional",
    "softmax_shape",
    "token_advantages",
    "top_entropy",
    "uniform",
]
