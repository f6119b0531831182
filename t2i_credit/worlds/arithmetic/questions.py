"""Questions, their worked steps, their wordings as prompts, and the split they belong to. Draws nothing.

A question is numbers from 1 to 99 joined by + - *, and so is every result on the way: "17+25*3" is worked as
25*3=75, 17+75=92. Products go first, then left to right.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ...errors import PromptError

LARGEST = 99  # of every number, given or on the way
OPERATOR_WORDS = {"+": "plus", "-": "minus", "*": "times"}
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
END = ":"  # of every prompt
WRONGLY = ", answer wrongly"  # before the end of a negative prompt
HELD_OUT_OF = 8  # one problem out of so many is held out

_DIGITS = {word: str(n) for n, word in enumerate(NUMBER_WORDS, 1)}
_SIGNS = {word: sign for sign, word in OPERATOR_WORDS.items()}
_WORDS = {symbol: word for word, symbol in [*_DIGITS.items(), *_SIGNS.items()]}
_QUESTION = re.compile(r"[1-9][0-9]?(?:[+*-][1-9][0-9]?)+")


@dataclass(frozen=True)
class Question:
    """N + 1 numbers and the N operators between them."""

    numbers: tuple[int, ...]
    operators: tuple[str, ...]

    def __str__(self) -> str:
        rest = zip(self.operators, self.numbers[1:], strict=True)
        return f"{self.numbers[0]}" + "".join(f"{sign}{number}" for sign, number in rest)

    @property
    def split(self) -> str:
        """ "train" or "heldout", whatever the wording of the prompt."""
        return "heldout" if zlib.crc32(str(self).encode()) % HELD_OUT_OF == 0 else "train"

    def next_step(self) -> tuple[int, int, str, int]:
        """Which operator is worked next: (its place, left, sign, right)."""
        place = self.operators.index("*") if "*" in self.operators else 0
        return (place, self.numbers[place], self.operators[place], self.numbers[place + 1])

    def reduced(self, result: int) -> Question:
        """What is left when the next step has given `result`."""
        place = self.next_step()[0]
        numbers = (*self.numbers[:place], result, *self.numbers[place + 2 :])
        return Question(numbers, self.operators[:place] + self.operators[place + 1 :])


@dataclass(frozen=True)
class Step:
    """One line of the work: left sign right = result, right or wrong."""

    left: int
    sign: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.right}={self.result}"


def compute(left: int, sign: str, right: int) -> int:
    """What the step should give."""
    if sign == "+":
        return left + right
    return left - right if sign == "-" else left * right


def work(question: Question, changes: Mapping[int, int] | None = None) -> list[Step]:
    """The steps in order; `changes` {index: result} replaces results of steps, and the rest builds on them."""
    steps: list[Step] = []
    changes = changes or {}
    while question.operators:
        _, left, sign, right = question.next_step()
        result = changes.get(len(steps), compute(left, sign, right))
        steps.append(Step(left, sign, right, result))
        question = question.reduced(result)
    return steps


def within_range(steps: list[Step]) -> bool:
    """Whether every result is a number that a question could hold."""
    return all(1 <= step.result <= LARGEST for step in steps)


# Prompts ----------------------------------------------------------------------------------------------------------


def wording(question: Question, *, words: bool) -> str:
    """The prompt: "17+25*3:", or "17 plus 25 times three:"."""
    if not words:
        return f"{question}{END}"
    symbols = re.findall("[0-9]+|[+*-]", str(question))
    return " ".join(_WORDS.get(symbol, symbol) for symbol in symbols) + END


def read(prompt: str) -> Question:
    """The question of a prompt, positive or negative, in either wording.

    Raises:
        PromptError: the text is no such prompt.
    """
    text = prompt.removesuffix(END)
    asked = text.removesuffix(WRONGLY)
    plain = asked if " " not in asked else _plain(asked.split(" "))
    if text == prompt or not _QUESTION.fullmatch(plain):
        raise PromptError(
            f"prompt {prompt!r}: not a problem; numbers from 1 to {LARGEST} with + - * (or plus, minus, times) "
            f'between them and "{END}" at the end, such as "17+25*3{END}"'
        )
    numbers, signs = re.split("[+*-]", plain), re.findall("[+*-]", plain)
    return Question(tuple(map(int, numbers)), tuple(signs))


def _plain(words: Sequence[str]) -> str:
    """Numbers and operator words in turn, in symbols; "?" stands for a word out of place."""
    numbers = [_DIGITS.get(word, word) for word in words[::2]]
    signs = [_SIGNS.get(word, "?") for word in words[1::2]]
    return numbers[0] + "".join(s + n for s, n in zip_longest(signs, numbers[1:], fillvalue="?"))


def negative(prompt: str) -> str:
    """The prompt with the instruction to answer wrongly.

    Raises:
        PromptError: the text is no prompt, or has the instruction already.
    """
    read(prompt)
    if prompt.endswith(WRONGLY + END):
        raise PromptError(f"prompt {prompt!r}: it asks for a wrong answer already")
    return prompt.removesuffix(END) + WRONGLY + END
