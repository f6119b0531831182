"""Advantages: one number per sample, by hand and by invariants."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.advantages import (
    ADVANTAGES,
    group_centered,
    group_normalized,
    leave_one_out,
    zero_spread_groups,
)
from t2i_credit.errors import UserError

every_advantage = pytest.mark.parametrize("name", sorted(ADVANTAGES))


def rewards_of(prompts: int, group_size: int) -> torch.Tensor:
    return torch.randn(prompts * group_size, generator=torch.Generator().manual_seed(3))


@every_advantage
def test_advantages_of_a_group_sum_to_zero(name):
    advantages = ADVANTAGES[name](rewards_of(5, 6), 6)
    assert advantages.shape == (30,)
    # six float32 numbers of size 1: rounding is at most a few 1e-7
    assert advantages.reshape(5, 6).sum(dim=1).abs().max() < 2e-6


@every_advantage
def test_a_group_of_equal_rewards_has_advantages_of_exactly_zero(name):
    # the float32 mean of seven times 0.1 is not 0.1
    rewards = torch.cat([torch.full((7,), 0.1), torch.arange(7.0)])
    advantages = ADVANTAGES[name](rewards, 7)
    assert torch.equal(advantages[:7], torch.zeros(7))
    assert advantages[7:].abs().max() > 1


@every_advantage
def test_advantages_follow_samples_within_a_group_and_whole_groups(name):
    rewards = rewards_of(4, 5)
    draw = torch.Generator().manual_seed(4)
    order = torch.cat([g * 5 + torch.randperm(5, generator=draw) for g in (2, 0, 3, 1)])
    expected = ADVANTAGES[name](rewards, 5)[order]
    torch.testing.assert_close(ADVANTAGES[name](rewards[order], 5), expected, rtol=0, atol=1e-6)


@every_advantage
def test_advantages_are_detached_float32_and_leave_the_rewards_untouched(name):
    rewards = rewards_of(2, 3).double().requires_grad_()
    before = rewards.detach().clone()
    advantages = ADVANTAGES[name](rewards, 3)
    assert advantages.dtype == torch.float32 and not advantages.requires_grad
    assert torch.equal(rewards.detach(), before)


@every_advantage
@pytest.mark.parametrize(("count", "group_size"), [(4, 1), (4, 0), (5, 2), (0, 2)])
def test_groups_that_cannot_be_compared_are_refused_in_one_line(name, count, group_size):
    with pytest.raises(UserError, match="group_size") as caught:
        ADVANTAGES[name](torch.zeros(count), group_size)
    assert "\n" not in str(caught.value)


def test_group_normalized_divides_by_the_unbiased_std():
    # rewards 0, 0, 1, 1: mean 1/2, unbiased variance 4 * (1/4) / 3 = 1/3, std 0.577350
    # A = +-0.5 / (0.577350 + 0.0001) = +-0.865875
    advantages = group_normalized(torch.tensor([0.0, 0.0, 1.0, 1.0]), 4)
    expected = torch.tensor([-0.865875, -0.865875, 0.865875, 0.865875])
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-6)


def test_group_normalized_adds_eps_to_the_std():
    # std of 0, 2 is sqrt(2); A = 1 / (1.414214 + 0.5) = 0.522408
    advantages = group_normalized(torch.tensor([0.0, 2.0]), 2, eps=0.5)
    expected = torch.tensor([-0.522408, 0.522408])
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-6)


def test_group_normalized_without_eps_gives_equal_rewards_zero():
    advantages = group_normalized(torch.tensor([1.0, 1.0, 0.0, 2.0]), 2, eps=0.0)
    assert advantages[:2].tolist() == [0.0, 0.0]
    assert torch.allclose(advantages[2:], torch.tensor([-1.0, 1.0]) / 2**0.5)


def test_group_normalized_refuses_a_negative_eps():
    with pytest.raises(UserError, match=r"eps >= 0, got -0\.1"):
        group_normalized(torch.tensor([0.0, 2.0]), 2, eps=-0.1)


def test_group_centered_keeps_the_unit_of_the_reward():
    # group 1: mean 2; group 2: mean 20
    advantages = group_centered(torch.tensor([1.0, 2.0, 3.0, 10.0, 10.0, 40.0]), 3)
    assert advantages.tolist() == [-1.0, 0.0, 1.0, -10.0, -10.0, 20.0]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # 1 - (2 + 6) / 2 = -3;  2 - (1 + 6) / 2 = -1.5;  6 - (1 + 2) / 2 = 4.5
    assert leave_one_out(torch.tensor([1.0, 2.0, 6.0]), 3).tolist() == [-3.0, -1.5, 4.5]


def test_zero_spread_groups_are_those_with_equal_rewards():
    rewards = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert zero_spread_groups(rewards, 2).tolist() == [True, False, True]
    with pytest.raises(UserError):
        zero_spread_groups(rewards, 1)
