"""Draws problems, each with a right chain, out of one of two splits. Makes no mistakes: see mistakes.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import PromptError
from .chains import write
from .mistakes import is_hard
from .questions import Question, read, within_range, wording, work

STEPS = (2, 3, 4)
STEP_SHARES = (0.5, 0.3, 0.2)  # how often a problem has that many steps
OPERATORS = "+-*"
OPERATOR_SHARES = (0.4, 0.3, 0.3)
WORDS_SHARE = 0.5  # of the prompts: "17 plus 25 times three:" and not "17+25*3:"
SPLITS = ("train", "heldout")
MOST_HARD = 2  # hard steps of a problem, so that a right chain is never out of reach


@dataclass(frozen=True)
class Problem:
    """A problem with a right chain.

    Attributes:
        prompt: such as "17+25*3:".
        chain: the completion, such as " 25*3=75, 17+75=92 #92"; it begins with a space.
        answer: 92.
    """

    prompt: str
    chain: str
    answer: int


def problem(rng: np.random.Generator, *, split: str = "train", steps: int | None = None) -> Problem:
    """Draws a problem of a split.

    Args:
        rng: where it comes from.
        split: "train" or "heldout"; no question is in both, whatever its wording.
        steps: how many; None = drawn by STEP_SHARES.
    """
    question = draw_question(rng, split=split, steps=steps)
    worked = work(question)
    words = bool(rng.random() < WORDS_SHARE)
    return Problem(wording(question, words=words), write(worked, rng), worked[-1].result)


def draw_question(
    rng: np.random.Generator, *, split: str = "train", steps: int | None = None
) -> Question:
    """Draws a question of a split; see `problem`."""
    if split not in SPLITS:
        raise PromptError(f"split: {split!r} is not allowed; allowed: {', '.join(SPLITS)}")
    if steps not in (None, *STEPS):
        raise PromptError(f"steps: {steps!r} is not allowed; allowed: {', '.join(map(str, STEPS))}")
    count = int(rng.choice(STEPS, p=STEP_SHARES)) if steps is None else steps
    while True:
        question = _any_question(rng, count)
        worked = work(question)
        easy_enough = within_range(worked) and sum(map(is_hard, worked)) <= MOST_HARD
        if easy_enough and question.split == split:
            return question


def _any_question(rng: np.random.Generator, steps: int) -> Question:
    """Factors up to 19 and 9, other numbers up to 49, no product of three."""
    signs: list[str] = []
    while len(signs) < steps:
        sign = str(rng.choice(list(OPERATORS), p=OPERATOR_SHARES))
        if sign != "*" or signs[-1:] != ["*"]:
            signs.append(sign)
    numbers = []
    for before, after in zip(["", *signs], [*signs, ""], strict=True):
        largest = 9 if before == "*" else 19 if after == "*" else 49
        numbers.append(int(rng.integers(2, largest + 1)))
    return Question(tuple(numbers), tuple(signs))


def dataset(n: int, seed: int, split: str = "train") -> list[dict[str, Any]]:
    """`n` different problems: {"prompt": str, "answer": int, "gold": str}, gold being a right chain.

    Args:
        n: how many.
        seed: the same seed, the same problems; a longer list begins with a shorter one's.
        split: "train" or "heldout".
    """
    rng = np.random.default_rng([seed, split == "heldout"])
    found: dict[Question, dict[str, Any]] = {}
    while len(found) < n:
        drawn = problem(rng, split=split)
        row = {"prompt": drawn.prompt, "answer": drawn.answer, "gold": drawn.chain}
        found.setdefault(read(drawn.prompt), row)
    return list(found.values())
