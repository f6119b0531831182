"""Forward passes per token of a training step on text, counted as for images: see passes.py. Runs none.

What is kept for the run folder comes on top.
"""

from __future__ import annotations

from typing import Any

from ..passes import Passes
from .trl import TextCreditConfig
from .trl_config import REFERENCE_FIELDS


def passes_needed(credit: TextCreditConfig, args: Any) -> Passes:
    """What a step (a rollout with all its updates) takes.

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
    frozen = old + (args.beta != 0) + bool(credit.needs & REFERENCE_FIELDS)
    return Passes(
        decode=1,
        policy=updates,
        frozen=frozen + opinions * (updates if credit.renews else 1),
    )
