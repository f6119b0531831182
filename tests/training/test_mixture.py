"""The mixture of reward parts: z-scores by hand, state that comes back, and a watch that can tell a fall from noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from t2i_credit.config.schema import parse_config
from t2i_credit.run_folder.pace import WINDOW
from t2i_credit.training.mixture import Mixture, RunningMoments
from t2i_credit.training.recorder import HeldoutWatch

VALUES = {"a": torch.tensor([0.0, 2.0, 3.0, 3.0]), "b": torch.tensor([10.0, 30.0, 20.0, 20.0])}


def mixture(**parts: dict[str, Any]) -> Mixture:
    return Mixture(parse_config({"reward": parts}).reward)


def test_parts_without_normalisation_are_weighed_as_they_are_and_held_out_ones_left_out() -> None:
    mix = mixture(a={"weight": 2.0}, b={"heldout": True})
    total, normalized = mix(VALUES, 2, learn=True)
    assert total.tolist() == [0.0, 4.0, 6.0, 6.0]
    assert normalized == {} and mix.heldout == ["b"]


def test_group_normalisation_gives_every_part_the_same_say_whatever_its_spread() -> None:
    # groups (0, 2) and (10, 30): +-1 / sqrt 2 each; equal rewards give 0. Weights 1 and 3
    total, normalized = mixture(a={"normalize": "group"}, b={"normalize": "group", "weight": 3.0})(
        VALUES, 2, learn=True
    )
    half = 1 / math.sqrt(2)
    for part in normalized.values():
        expected = torch.tensor([-half, half, 0.0, 0.0])
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-4)
    expected = torch.tensor([-4 * half, 4 * half, 0.0, 0.0])
    torch.testing.assert_close(total, expected, rtol=0, atol=4e-4)


def test_running_normalisation_uses_every_value_so_far_this_batch_included() -> None:
    mix = mixture(a={"normalize": "running"}, b={"weight": 0.0})
    first, _ = mix(VALUES, 2, learn=True)
    # mean 2, squares 4 + 0 + 1 + 1, unbiased std sqrt 2
    expected = torch.tensor([-2.0, 0.0, 1.0, 1.0]) / math.sqrt(2)
    torch.testing.assert_close(first, expected, rtol=0, atol=2e-4)
    # 0, 2, 3, 3 and 6, 10: mean 4, squares 16 + 4 + 1 + 1 + 4 + 36 = 62, std sqrt 12.4
    values = {"a": torch.tensor([6.0, 10.0]), "b": torch.zeros(2)}
    second, normalized = mix(values, 2, learn=True)
    expected = torch.tensor([2.0, 6.0]) / math.sqrt(12.4)
    torch.testing.assert_close(second, expected, rtol=0, atol=2e-4)
    assert torch.equal(normalized["a"], second)


def test_running_moments_of_batches_are_those_of_everything_at_once() -> None:
    values = torch.randn(90, generator=torch.Generator().manual_seed(0)) * 3 + 100
    moments = RunningMoments()
    for part in values.split([40, 1, 49]):
        moments.add(part)
    assert moments.count == 90
    assert moments.mean == pytest.approx(values.double().mean().item(), rel=1e-12)
    assert moments.squares / 89 == pytest.approx(values.double().var().item(), rel=1e-9)


def test_a_single_value_and_equal_values_have_a_running_z_score_of_zero() -> None:
    moments = RunningMoments()
    moments.add(torch.tensor([7.0]))
    assert moments.z(torch.tensor([7.0])).tolist() == [0.0]
    moments.add(torch.full((5,), 7.0))
    assert moments.z(torch.tensor([7.0])).tolist() == [0.0]


def test_the_state_of_a_mixture_comes_back_exactly_and_not_learning_leaves_it() -> None:
    mix, again = (mixture(a={"normalize": "running"}) for _ in range(2))
    mix({"a": torch.rand(7)}, 1, learn=True)
    state = mix.state()
    mix({"a": torch.rand(7)}, 1, learn=False)
    assert mix.state() == state
    again.load(state)
    assert torch.equal(
        again(VALUES, 2, learn=False)[0], mix(VALUES, 2, learn=False)[0]
    ) and not torch.equal(
        mixture(a={"normalize": "running"})(VALUES, 2, learn=True)[0],
        mix(VALUES, 2, learn=False)[0],
    )


# ---- held-out rewards ----


def wobble(step: int) -> float:
    return 0.01 * (-1) ** step


def watched(rise: float, fall: float, steps: int = WINDOW) -> tuple[HeldoutWatch, list[str]]:
    """A watch after steps along which the trained reward and a held-out one move by so much a step."""
    watch = HeldoutWatch()
    said = [watch(rise * s + wobble(s), {"x": fall * s + wobble(s + 1)}) for s in range(steps)]
    return watch, said


def test_a_held_out_reward_that_falls_while_the_trained_one_rises_is_said_once() -> None:
    watch, said = watched(0.01, -0.02, WINDOW + 5)
    # halves of 20 steps lie 20 steps apart: 20 * 0.02
    line = f"over the last {WINDOW} steps the reward rose while held-out x fell by 0.4"
    assert watch.fallen and [s for s in said if s] == [line]
    assert said.index(line) == WINDOW - 1  # not before the window is full


@pytest.mark.parametrize(
    ("rise", "fall"), [(0.01, 0.01), (-0.01, -0.01), (0.0, -0.01), (0.01, 0.0)]
)
def test_nothing_is_said_when_both_move_together_or_one_stands_still(
    rise: float, fall: float
) -> None:
    watch, said = watched(rise, fall)
    assert not watch.fallen and not any(said)


def test_a_fall_within_two_standard_errors_is_noise() -> None:
    # values +-1 have an unbiased variance of 20 / 19 a half, so the error of the difference is
    # sqrt(2 / 19) = 0.3244, and twice that 0.649
    for drop, falls in ((0.60, False), (0.70, True)):
        watch = HeldoutWatch()
        for s in range(WINDOW):
            late = s >= WINDOW // 2
            watch(float(s), {"x": (-1.0) ** s - drop * late})
        assert watch.fallen == falls


def test_a_watch_that_takes_up_a_state_goes_on_as_the_undisturbed_one() -> None:
    watch, _ = watched(0.01, -0.02)
    again = HeldoutWatch()
    again.load(watch.state())
    assert again(1.0, {"x": -1.0}) == watch(1.0, {"x": -1.0}) == ""
    assert again.fallen and again.state() == watch.state()


def test_a_watch_of_other_rewards_begins_anew() -> None:
    watch, _ = watched(0.01, -0.02)
    assert watch(1.0, {"y": -1.0}) == "" and not watch.fallen
    assert len(watch.steps) == 1
