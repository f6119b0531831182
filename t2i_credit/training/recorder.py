"""What the run folder keeps of a step; warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, variance
from typing import Any

WINDOW = 40  # steps over which a held-out reward is watched, an even number
SURE = 2.0  # standard errors by which a mean must move before it counts as risen or fallen


class HeldoutWatch:
    """Notices that the trained reward rises while a held-out one falls: the policy may be gaming its reward.

    Over the last WINDOW steps, the mean of the later half minus that of the earlier half must be above SURE standard
    errors of that difference for the trained reward, and below minus as many for the held-out one.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []  # of the window, the oldest first
        self.fallen = False

    def __call__(self, reward: float, heldout: Mapping[str, float]) -> str:
        """Takes one more step in; `fallen` says how things stand, and a line is returned when that begins."""
        latest = {"": reward, **heldout}
        known = [step for step in self.steps if step.keys() == latest.keys()]  # a resumed run's
        self.steps = [*known, latest][-WINDOW:]
        before = self.fallen
        falls: dict[str, float | None] = {}
        if len(self.steps) == WINDOW and self._moved("", 1) is not None:
            falls = {name: self._moved(name, -1) for name in heldout}
        told = [f"{name} fell by {change:.3g}" for name, change in falls.items() if change]
        self.fallen = bool(told)
        if not told or before:
            return ""
        return f"over the last {WINDOW} steps the reward rose while held-out {', '.join(told)}"

    def _moved(self, name: str, sign: int) -> float | None:
        """How far a reward moved in the direction of `sign`; None if it did not for sure."""
        values = [step[name] for step in self.steps]
        halves = values[: WINDOW // 2], values[WINDOW // 2 :]
        change = sign * (fmean(halves[1]) - fmean(halves[0]))
        error = math.sqrt(sum(variance(half) / len(half) for half in halves))
        return change if change > SURE * error else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "fallen": self.fallen}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
        self.steps, self.fallen = list(state["steps"]), state["fallen"]
