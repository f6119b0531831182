"""Worked chains as text: writing them, a strict parser, the exact checker, and what each character is.

" first 25*3=75, then 17+75=92 #92": steps, filler words that change nothing, and the announced answer. Nothing is
ever evaluated as code. Positions are characters of the completion, and so are tokens of the character tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .questions import Question, Step, compute, read, work

OPENERS = ("", "first ", "well, ", "ok, ")
LINKS = ("", "then ", "next ", "now ")
CLOSERS = ("", " so", " thus")
ROLES = ("glue", "filler", "operand", "result", "answer")

_NUMBER = "(?:0|[1-9][0-9]{0,5})"
_STEP = re.compile(rf"({_NUMBER})([+*-])({_NUMBER})=({_NUMBER})")
_CHAIN = re.compile(
    rf" ?(?:{'|'.join(filter(None, OPENERS))})?{_STEP.pattern}"
    rf"(?:, (?:{'|'.join(filter(None, LINKS))})?{_STEP.pattern})*"
    rf"(?:{'|'.join(filter(None, CLOSERS))})? #(?P<answer>{_NUMBER})"
)
_FILLER = re.compile("[a-z]+")


def write(steps: Sequence[Step], rng: np.random.Generator | None = None) -> str:
    """The completion of these steps; filler words are drawn, or left out without an `rng`."""

    def one(words: Sequence[str]) -> str:
        return words[0] if rng is None else words[int(rng.integers(len(words)))]

    text = f" {one(OPENERS)}{steps[0]}"
    for step in steps[1:]:
        text += f", {one(LINKS)}{step}"
    return f"{text}{one(CLOSERS)} #{steps[-1].result}"


@dataclass(frozen=True)
class WrittenStep:
    """A step as it stands in a completion: characters [start, end), its result [result, end)."""

    step: Step
    start: int
    result: int
    end: int


@dataclass(frozen=True)
class Chain:
    """A parsed completion; the announced answer's digits are characters [answer_start, end of the text)."""

    steps: tuple[WrittenStep, ...]
    answer: int
    answer_start: int


def parse(completion: str) -> Chain | None:
    """The chain of a completion, or None if a single character is out of place."""
    whole = _CHAIN.fullmatch(completion)
    if whole is None:
        return None
    steps = []
    for found in _STEP.finditer(completion):
        left, sign, right, result = found.groups()
        step = Step(int(left), sign, int(right), int(result))
        steps.append(WrittenStep(step, found.start(), found.start(4), found.end()))
    return Chain(tuple(steps), int(whole["answer"]), whole.start("answer"))


def check(completion: str, answer: int) -> bool:
    """Whether the completion is a well-formed chain that announces exactly this answer.

    The steps themselves are not judged: a reward for the outcome is to find out what they should be."""
    chain = parse(completion)
    return chain is not None and chain.answer == answer


# What went wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a completion did with its problem.

    Attributes:
        correct: as `check`.
        kind: "right" (every step follows), "slip" (one wrong result, all else follows), "slips" (several), "lost" (a
            step that does not belong there: other numbers, another order, too few or too many) or "malformed".
        wrong: indices of the wrong steps in their order, each judged by what stood before it; the number of steps
            stands for the announced answer. The first of them decides that the answer is wrong.
    """

    correct: bool
    kind: str
    wrong: tuple[int, ...]

    @property
    def decisive(self) -> int | None:
        """The first wrong step, None if there is none."""
        return self.wrong[0] if self.wrong else None


def judge(prompt: str, completion: str) -> Verdict:
    """What a completion did with the problem of a prompt, positive or negative."""
    question = read(prompt)
    chain = parse(completion)
    if chain is None:
        return Verdict(False, "malformed", ())
    correct = chain.answer == solve(question)
    wrong: list[int] = []
    for index, written in enumerate(chain.steps):
        step = written.step
        if not question.operators or question.next_step()[1:] != (step.left, step.sign, step.right):
            return Verdict(correct, "lost", (*wrong, index))
        if step.result != compute(step.left, step.sign, step.right):
            wrong.append(index)
        question = question.reduced(step.result)
    if question.operators:
        return Verdict(correct, "lost", (*wrong, len(chain.steps)))
    if chain.answer != question.numbers[0]:
        wrong.append(len(chain.steps))
    kinds = {0: "right", 1: "slip"}
    return Verdict(correct, kinds.get(len(wrong), "slips"), tuple(wrong))


def solve(question: Question) -> int:
    """The right answer."""
    return work(question)[-1].result


# What each character is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """Of each character of a completion of T characters.

    Attributes:
        role: (T) out of ROLES; operators and "=" are operands' and results' glue.
        step: (T) index of the step, the number of steps for the announced answer, -1 outside of steps.
    """

    role: list[str]
    step: list[int]


def labels(completion: str) -> Labels | None:
    """What each character of a well-formed completion is; None for a malformed one."""
    chain = parse(completion)
    if chain is None:
        return None
    role, step = ["glue"] * len(completion), [-1] * len(completion)
    for word in _FILLER.finditer(completion):
        role[word.start() : word.end()] = ["filler"] * len(word.group())
    for index, written in enumerate(chain.steps):
        step[written.start : written.end] = [index] * (written.end - written.start)
        for at in range(written.start, written.end):
            if completion[at].isdigit():
                role[at] = "operand" if at < written.result else "result"
    for at in range(chain.answer_start, len(completion)):
        role[at], step[at] = "answer", len(chain.steps)
    return Labels(role, step)
