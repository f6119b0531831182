"""Noisy captions of the embedded worlds: which word is wrong, and how. The words that are confused most often are always the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..prompts.records import NUMBERS, caption
from .grammar import INVERSE, Grammar, Record

SYSTEMATIC = 0.8  # share of the wrong captions that follow the confusions; the rest show any other word of the kind
# How often a word is wrong. For some (OFTEN) the wrong picture is the more frequent one: no temperature or guidance repairs that.
RARE, OFTEN = 0.10, 0.60
# confusions of the words that every world has
COMMON: dict[str, tuple[str, float]] = {
    "one": ("two", RARE),
    "two": ("three", RARE),
    "three": ("four", OFTEN),
    "four": ("three", RARE),
    "left of": ("right of", OFTEN),
    "right of": ("left of", OFTEN),
    "above": ("below", OFTEN),
    "below": ("above", OFTEN),
}


@dataclass(frozen=True)
class Mistakes:
    """How often a caption's word is wrong about the picture, and the word that the picture then shows most often.

    Attributes:
        grammar: the world's words.
        confusions: {word: (shown, probability)} for every class, colour, relation and number.
    """

    grammar: Grammar
    confusions: Mapping[str, tuple[str, float]]

    def neighbour(self, record: Record, rng: np.random.Generator) -> Record | None:
        """A held-in record that differs from this one in a single word, in the same template; None if the word that was
        drawn has no such neighbour."""
        words = _words(record)
        shown = self._changed(record, words[rng.integers(len(words))][0], rng)
        if not self._is_drawable(shown):
            return None
        return {**shown, "prompt": caption(shown, self.grammar.template_of(record))}

    def shown_record(self, record: Record, rng: np.random.Generator) -> Record:
        """What the picture behind a noisy caption shows: the record itself, or one with exactly one word changed.

        Each word is wrong with its own probability; of several wrong ones a single one is kept. A change that would
        show a held-out composition, or two objects of one class where the task wants two, is not made.
        """
        wrong = [place for place, word in _words(record) if rng.random() < self.confusions[word][1]]
        if not wrong:
            return record
        shown = self._changed(record, wrong[rng.integers(len(wrong))], rng)
        return {**shown, "prompt": record["prompt"]} if self._is_drawable(shown) else record

    def _swap(self, word: str, kinds: Iterable[str], rng: np.random.Generator) -> str:
        """The word that the picture shows where a caption's `word` is wrong."""
        if rng.random() < SYSTEMATIC:
            return self.confusions[word][0]
        return str(rng.choice([k for k in kinds if k != word]))

    def _changed(self, record: Record, place: tuple[int, str], rng: np.random.Generator) -> Record:
        """The record with one word replaced; `place` is (clause, key)."""
        index, key = place
        shown = copy.deepcopy(record)
        clause = shown["include"][index]
        if key == "position":
            clause[key][0] = self._swap(clause[key][0], INVERSE, rng)
        elif key == "count":
            clause[key] = 1 + NUMBERS.index(self._swap(NUMBERS[clause[key] - 1], NUMBERS, rng))
        else:
            kinds = self.grammar.names if key == "class" else self.grammar.colors
            clause[key] = self._swap(clause[key], kinds, rng)
        if shown["tag"] == "counting":
            shown["exclude"] = [{**clause, "count": clause["count"] + 1}]
        return shown

    def _is_drawable(self, shown: Record) -> bool:
        """Whether a changed record is held in and still has a class of its own for each clause."""
        classes = [c["class"] for c in shown["include"]]
        return not self.grammar.is_held_out(shown) and len(set(classes)) == len(classes)


def _words(record: Record) -> list[tuple[tuple[int, str], str]]:
    """The words of a record that can be wrong: ((clause, key), word)."""
    found = []
    for i, clause in enumerate(record["include"]):
        found.append(((i, "class"), clause["class"]))
        if "color" in clause:
            found.append(((i, "color"), clause["color"]))
        if "position" in clause:
            found.append(((i, "position"), clause["position"][0]))
        if record["tag"] == "counting":
            found.append(((i, "count"), NUMBERS[clause["count"] - 1]))
    return found
