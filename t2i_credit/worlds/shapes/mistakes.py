"""Noisy captions: which word of a caption is wrong, and how. The words that are confused most often are always the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np

from .grammar import INVERSE, NUMBERS, Record, caption, is_held_out, template_of
from .scene import COLORS, SHAPES

# How often a caption's word is wrong about the picture, and the word that the picture then shows most often.
# For some words (_OFTEN) the wrong picture is the more frequent one: no temperature or guidance repairs that.
_RARE, _OFTEN = 0.10, 0.60
CONFUSIONS: dict[str, tuple[str, float]] = {
    "red": ("orange", _RARE),
    "orange": ("red", _OFTEN),
    "yellow": ("green", _RARE),
    "green": ("yellow", _RARE),
    "blue": ("purple", _RARE),
    "purple": ("blue", _RARE),
    "circle": ("ring", _RARE),
    "ring": ("circle", _OFTEN),
    "square": ("cross", _RARE),
    "cross": ("square", _OFTEN),
    "triangle": ("square", _RARE),
    "one": ("two", _RARE),
    "two": ("three", _RARE),
    "three": ("four", _OFTEN),
    "four": ("three", _RARE),
    "left of": ("right of", _OFTEN),
    "right of": ("left of", _OFTEN),
    "above": ("below", _OFTEN),
    "below": ("above", _OFTEN),
}
SYSTEMATIC = 0.8  # share of the wrong captions that follow CONFUSIONS; the rest show any other word of the kind


def _swap(word: str, kinds: Iterable[str], rng: np.random.Generator) -> str:
    """The word that the picture shows where a caption's `word` is wrong."""
    if rng.random() < SYSTEMATIC:
        return CONFUSIONS[word][0]
    return str(rng.choice([k for k in kinds if k != word]))


def _changed(record: Record, place: tuple[int, str], rng: np.random.Generator) -> Record:
    """The record with one word replaced; `place` is (clause, key)."""
    index, key = place
    shown = copy.deepcopy(record)
    clause = shown["include"][index]
    if key == "position":
        clause[key][0] = _swap(clause[key][0], INVERSE, rng)
    elif key == "count":
        clause[key] = 1 + NUMBERS.index(_swap(NUMBERS[clause[key] - 1], NUMBERS, rng))
    else:
        clause[key] = _swap(clause[key], SHAPES if key == "class" else COLORS, rng)
    if shown["tag"] == "counting":
        shown["exclude"] = [{**clause, "count": clause["count"] + 1}]
    return shown


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


def neighbour(record: Record, rng: np.random.Generator) -> Record | None:
    """A held-in record that differs from this one in a single word, in the same template; None if the word that was
    drawn has no such neighbour."""
    words = _words(record)
    shown = _changed(record, words[rng.integers(len(words))][0], rng)
    if not _is_drawable(shown):
        return None
    return {**shown, "prompt": caption(shown, template_of(record))}


def _is_drawable(shown: Record) -> bool:
    """Whether a changed record is held in and still has a shape of its own for each clause."""
    classes = [c["class"] for c in shown["include"]]
    return not is_held_out(shown) and len(set(classes)) == len(classes)


def shown_record(record: Record, rng: np.random.Generator) -> Record:
    """What the picture behind a noisy caption shows: the record itself, or one with exactly one word changed.

    Each word is wrong with its own probability (CONFUSIONS); of several wrong ones a single one is kept. A change
    that would show a held-out composition, or two objects of one shape where the task wants two, is not made.
    """
    wrong = [place for place, word in _words(record) if rng.random() < CONFUSIONS[word][1]]
    if not wrong:
        return record
    shown = _changed(record, wrong[rng.integers(len(wrong))], rng)
    return {**shown, "prompt": record["prompt"]} if _is_drawable(shown) else record
