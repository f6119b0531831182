"""Forward passes per token of a training step on text, counted as for images: see passes.py. Runs none.

What is kept for the run folder comes on top.
"""

from __future__ import annotations

from typing import Any

from ..passes import Passes
from .trl import TextCreditConfig
from .trl_config import REFERENCE_FIELDS


def passes_needed(credit: TextCreditConfig, args: Any) -> Passes:
    """What a step (a rollout with all its updates) takes, of a model without dropout.

    Args:
        credit: the trainer's.
        args: trl's GRPOConfig.
    """
    updates = args.num_iterations
    rollout = args.steps_per_generation * updates
    # trl asks for the log-probs of sampling where updates are not those of the sampling policy
    corrected = args.use_vllm and args.vllm_importance_sampling_correction
    old = bool(args.gradient_accumulation_steps % rollout) or corrected
    opinions = 1 + credit.needs_negative if credit.needs else 0
    shared = old and args.temperature == 1 and not args.mask_truncated_completions
    if shared and not credit.renews and credit.needs == {"logprobs", "negative_logprobs"}:
        opinions -= 1  # the log-probs of sampling are those under the positive prompt
    reference = args.beta != 0 or bool(credit.needs & REFERENCE_FIELDS)
    frozen = old + reference
    return Passes(
        decode=1,
        policy=updates,
        frozen=frozen + opinions * (updates if credit.renews else 1),
    )
