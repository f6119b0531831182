"""Seeded batches of prompts without end, probes spread over the tasks, prompts that two sets share. Reads no file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PromptError

if TYPE_CHECKING:
    from ..interfaces import Prompt


class PromptBatches:
    """Seeded batches without end: every epoch is a fresh permutation of the set.

    A batch depends on (seed, step) alone, so a resumed run sees exactly the prompts of an uninterrupted one. Batches
    run over an epoch's end, so over any number of steps no prompt is more than one use ahead of another.

    Args:
        prompts: the set.
        per_step: P.
        seed: of the order.
        balance: the tasks of the prompts' records take turns, each with epochs of its own, so that every task is
            asked for equally often however many prompts it has.
    """

    def __init__(
        self, prompts: Sequence[Prompt], *, per_step: int, seed: int, balance: bool = False
    ) -> None:
        if not prompts:
            raise PromptError("prompts: the set is empty, at least one prompt is needed")
        if per_step < 1:
            raise PromptError(f"prompts.per_step: {per_step} is not allowed; at least 1")
        if seed < 0:
            raise PromptError(f"prompts.seed: {seed} is not allowed; at least 0")
        tasks: dict[str, list[Prompt]] = {}
        for prompt in prompts:
            task = prompt.spec["tag"] if balance and prompt.spec else ""
            tasks.setdefault(task, []).append(prompt)
        self.tasks = list(tasks.values())
        self.per_step = per_step
        self.seed = seed

    def batch(self, step: int) -> list[Prompt]:
        """The `per_step` prompts of step `step`, counted from 0."""
        assert step >= 0, f"steps count from 0, got {step}"
        return self.at(step * self.per_step, self.per_step)

    def at(self, first: int, count: int) -> list[Prompt]:
        """`count` prompts from place `first` of the endless order on."""
        orders: dict[tuple[int, int], np.ndarray] = {}
        picked: list[Prompt] = []
        for place in range(first, first + count):
            turn, task = divmod(place, len(self.tasks))
            members = self.tasks[task]
            epoch, index = divmod(turn, len(members))
            if (epoch, task) not in orders:
                rng = np.random.default_rng([self.seed, epoch, task])
                orders[epoch, task] = rng.permutation(len(members))
            picked.append(members[orders[epoch, task][index]])
        return picked


def with_negative(prompts: Iterable[Prompt], negative: str | None) -> list[Prompt]:
    """The prompts with one negative for all of them; None leaves each prompt its own."""
    if negative is None:
        return list(prompts)
    return [replace(prompt, negative=negative) for prompt in prompts]


def spread_over_tasks(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` prompts (at most one per task while there are tasks enough) at equal distances over tasks and set."""
    tasks: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        tasks.setdefault(prompt.spec["tag"] if prompt.spec else "", []).append(prompt)
    chosen: list[Prompt] = []
    groups = list(tasks.values())
    for turn in range(-(-count // len(groups))):
        wanted = min(count - len(chosen), len(groups))
        for i in range(wanted):
            members = groups[int((i + 0.5) * len(groups) / wanted)]
            chosen.append(members[(len(members) // 2 + turn) % len(members)])
    return chosen


def overlap(a: Iterable[Prompt], b: Iterable[Prompt]) -> list[str]:
    """The texts that occur in both sets, whatever their case and spaces, each once, in the order of `a`."""
    texts = {_same(prompt.text) for prompt in b}
    return list(dict.fromkeys(prompt.text for prompt in a if _same(prompt.text) in texts))


def _same(text: str) -> str:
    return " ".join(text.casefold().split())
