"""Wrong chains: which steps tempt to a mistake, which mistake, and chains that carry on from it.

A step is hard if a digit is carried or borrowed, or if the second factor is large; its mistake is always the same one
and commoner than the right result, so that a model that learned it makes it at a lower temperature, too. Any step may slip.
"""

from __future__ import annotations

import numpy as np

from .chains import write
from .questions import Question, Step, compute, within_range, work

HARD = 0.66  # how often a hard step that is reached without a mistake goes wrong
EASY = 0.08  # and any other step
LARGE_FACTOR = 6
SLIPS = (-10, -2, -1, 1, 2, 10)  # what a result that slipped is off by


def is_hard(step: Step) -> bool:
    """Whether the step tempts to its systematic mistake."""
    if step.sign == "*":
        return step.right >= LARGE_FACTOR
    units, others = step.left % 10, step.right % 10
    return units + others >= 10 if step.sign == "+" else units < others


def systematic(step: Step) -> int:
    """The usual wrong result of a hard step: the carried ten forgotten, the borrowed ten not paid back, or one factor
    too few."""
    right = compute(step.left, step.sign, step.right)
    return right + {"+": -10, "-": 10, "*": -step.left}[step.sign]


def wrong_results(question: Question, index: int) -> list[int]:
    """What step `index` of a question may wrongly give, so that the rest can be carried on within range."""
    step = work(question)[index]
    tempting = [systematic(step)] if is_hard(step) else [step.result + off for off in SLIPS]
    return [result for result in tempting if within_range(work(question, {index: result}))]


def hazards(question: Question) -> list[float]:
    """How probably each step goes wrong, if no step before it did; 0 where no mistake stays within range."""
    return [
        (HARD if is_hard(step) else EASY) if wrong_results(question, index) else 0.0
        for index, step in enumerate(work(question))
    ]


def noisy(question: Question, rng: np.random.Generator) -> str:
    """A completion with at most one mistake, each step tempted in turn; its consequences are carried on."""
    for index, hazard in enumerate(hazards(question)):
        if rng.random() < hazard:
            return write(_with_mistake(question, index, rng), rng)
    return write(work(question), rng)


def wrong(question: Question, rng: np.random.Generator) -> str | None:
    """A completion in which every hard step goes wrong, as it is reached; without one, the last step that can slips.

    The answer is never right. None if no step can go wrong.
    """
    changes: dict[int, int] = {}
    for index in range(len(question.operators)):
        step = work(question, changes)[index]
        changed = {**changes, index: systematic(step)}
        if is_hard(step) and within_range(work(question, changed)):
            changes = changed
    while changes and work(question, changes)[-1].result == work(question)[-1].result:
        changes.popitem()  # two mistakes made up for each other
    if changes:
        return write(work(question, changes), rng)
    able = [index for index, hazard in enumerate(hazards(question)) if hazard]
    return write(_with_mistake(question, able[-1], rng), rng) if able else None


def _with_mistake(question: Question, index: int, rng: np.random.Generator) -> list[Step]:
    return work(question, {index: int(rng.choice(wrong_results(question, index)))})
