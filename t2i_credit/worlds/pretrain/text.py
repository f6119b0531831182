"""Trains the embedded text model from nothing on noisy worked chains. Measures nothing: see measure/cards/text.py.

One stage, resumable from its checkpoints: the next character of a chain, first of right ones, then of noisy ones.
Every example is drawn afresh. Shapes: B examples, T characters of the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..arithmetic.chains import write
from ..arithmetic.mistakes import noisy, wrong
from ..arithmetic.problems import WORDS_SHARE, draw_question
from ..arithmetic.questions import negative, wording, work
from .generator import Progress, resumable, rng_for, schedule, take_step

BLOCK = 16  # batches that are drawn together and sorted by length, so that little is padded
IGNORED = -100  # label of a character that is not learned
STREAM = 31  # purpose of the randomness

Example = tuple[str, str]  # prompt, completion


@dataclass(frozen=True)
class ArithmeticPlan:
    """How long the model learns, and from what. How wrong the noisy chains are is arithmetic/mistakes.py's.

    Attributes:
        steps, batch, lr: of the training.
        curated_share: of the steps, the first, that see right chains; the rest see noisy ones. How to calculate is
            learned on the former, the base model's mistakes on the latter.
        wrongly_share: examples that ask for a wrong answer and get one, in both parts; the negative prompt needs them.
        seed: of everything.
        checkpoint_every: steps.
    """

    steps: int = 3600
    batch: int = 64
    lr: float = 2e-3
    curated_share: float = 0.5
    wrongly_share: float = 0.25
    seed: int = 0
    checkpoint_every: int = 250


def draw_example(rng: np.random.Generator, plan: ArithmeticPlan, *, curated: bool) -> Example:
    """A training problem with a right, a noisy, or (if the prompt asks for it) a wrong chain."""
    question = draw_question(rng)
    prompt = wording(question, words=bool(rng.random() < WORDS_SHARE))
    if rng.random() < plan.wrongly_share and (chain := wrong(question, rng)) is not None:
        return negative(prompt), chain
    return prompt, write(work(question), rng) if curated else noisy(question, rng)


def batches(plan: ArithmeticPlan, block: int) -> list[list[Example]]:
    """The BLOCK batches of a block of steps, each of examples of about one length, in a random order."""
    rng = rng_for(plan.seed, STREAM, block)
    curated = block < round(plan.curated_share * plan.steps / BLOCK)
    drawn = [draw_example(rng, plan, curated=curated) for _ in range(BLOCK * plan.batch)]
    drawn.sort(key=lambda example: len(example[0]) + len(example[1]))
    return [drawn[i * plan.batch : (i + 1) * plan.batch] for i in rng.permutation(BLOCK)]


def to_tensors(tokenizer: Any, examples: Sequence[Example]) -> dict[str, Tensor]:
    """input_ids, attention_mask and labels, each (B, T); only completions and their end are learned."""
    rows, labels = [], []
    for prompt, completion in examples:
        given = tokenizer(prompt)["input_ids"]
        learned = tokenizer(completion, add_special_tokens=False)["input_ids"]
        learned.append(tokenizer.eos_token_id)
        rows.append(given + learned)
        labels.append([IGNORED] * len(given) + learned)

    def padded(lists: list[list[int]], fill: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in lists], True, fill)

    return {
        "input_ids": padded(rows, tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in rows], 0),
        "labels": padded(labels, IGNORED),
    }


def pretrain_arithmetic(
    model: Any, tokenizer: Any, folder: Path, plan: ArithmeticPlan, progress: Progress
) -> None:
    """Trains a causal language model of transformers in place; checkpoints are kept in `folder`."""
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), plan.lr, (0.9, 0.98), weight_decay=0.05)
    held, block = [], -1
    for step in resumable(model, optimizer, folder, plan.steps, plan):
        if step // BLOCK != block:
            block = step // BLOCK
            held = batches(plan, block)
        loss = model(**to_tensors(tokenizer, held[step % BLOCK])).loss
        take_step(optimizer, loss, schedule(step, plan.steps, plan.lr), step)
        if (step + 1) % 50 == 0:
            progress("arithmetic", step + 1, plan.steps, {"loss": loss.item()})
    model.eval()
