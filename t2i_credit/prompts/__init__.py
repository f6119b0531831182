"""Prompt sets: read, written, made, and dealt out in seeded batches."""

from .batches import PromptBatches, overlap, spread_over_tasks, with_negative
from .files import load_prompts, save_prompts

__all__ = [
    "PromptBatches",
    "load_prompts",
    "overlap",
    "save_prompts",
    "spread_over_tasks",
    "with_negative",
]
