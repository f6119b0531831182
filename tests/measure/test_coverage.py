"""Intervals hold what they say: how often those of simulated evaluations hold the true share or change.

A prompt's own chance of a right image is drawn from a beta distribution whose mean is the true share and whose
intra-class correlation is rho: 0 = all prompts are alike, 0.9 = nearly all images of a prompt agree.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from t2i_credit.measure.intervals import change_intervals, task_intervals

EVALUATIONS, LEAST = 1000, 0.93


def shares(
    rng: np.random.Generator, mean: float, rho: float, shape: tuple[int, int], images: int
) -> NDArray[np.float64]:
    """(evaluations, prompts) shares of right images."""
    chance: float | NDArray[np.float64] = mean
    if rho:
        scale = 1 / rho - 1
        chance = rng.beta(mean * scale, (1 - mean) * scale, shape)
    return rng.binomial(images, chance, shape) / images


def told(what: str, held: dict[Any, float]) -> None:
    """Prints the worst case (pytest -s), and holds it against what is promised."""
    worst = min(held, key=held.__getitem__)
    print(
        f"{what}: {len(held)} cases, mean {np.mean([*held.values()]):.3f}, worst {held[worst]:.3f} of {worst}"
    )
    assert held[worst] >= LEAST


@pytest.mark.parametrize("prompts", [2, 5, 20, 200])
def test_a_shares_interval_holds_it_in_93_of_100_evaluations_or_more(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    held = {}
    for images, rho, mean in itertools.product((1, 8), (0.0, 0.5, 0.9), (0.02, 0.3, 0.98)):
        found = shares(rng, mean, rho, (EVALUATIONS, prompts), images)
        ends = [task_intervals({"a": row})["a"] for row in found]
        held[images, rho, mean] = np.mean([low <= mean <= high for _, low, high in ends])
    told(f"{prompts} prompts", held)


def test_the_interval_of_an_overall_score_holds_it_too() -> None:
    rng = np.random.default_rng(0)
    held = {}
    for sizes, means in itertools.product(
        ((5,) * 6, (2, 5, 20, 50, 5, 9)), ((0.98, 0.98, 0.9, 0.9, 0.5, 0.2), (0.98,) * 6)
    ):
        parts = [
            shares(rng, m, 0.5, (EVALUATIONS, n), 4) for n, m in zip(sizes, means, strict=True)
        ]
        ends = [
            task_intervals({str(i): part[row] for i, part in enumerate(parts)})["overall"]
            for row in range(EVALUATIONS)
        ]
        held[sizes, means] = np.mean([low <= np.mean(means) <= high for _, low, high in ends])
    told("overall of 6 tasks", held)


@pytest.mark.parametrize("prompts", [2, 5, 20, 80])
def test_a_changes_interval_holds_it_in_93_of_100_evaluations_or_more(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    held = {}
    for images, before, gain in itertools.product((1, 8), (0.02, 0.5, 0.9), (0.0, 0.05)):
        shape, after = (EVALUATIONS, prompts), before + gain
        first, second = (shares(rng, mean, 0.5, shape, images) for mean in (before, after))
        ends = [change_intervals({"a": row})["a"] for row in second - first]
        held[images, before, gain] = np.mean([low <= gain <= high for _, low, high in ends])
    told(f"{prompts} prompts", held)
