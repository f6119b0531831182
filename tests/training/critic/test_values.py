"""The arithmetic of a critic by hand: baseline, unit of the advantage, trust."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_credit.advantages import group_centered, group_normalized
from t2i_credit.training.critic.values import Trust, advantage_unit, others_logit, others_mean

REWARDS = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])  # two groups of four


def test_the_baseline_is_the_mean_of_the_other_samples_half_a_sample_away_from_certainty() -> None:
    means = others_mean(REWARDS, 4)
    torch.testing.assert_close(means, torch.tensor([0.0, 1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1]))
    found = torch.sigmoid(others_logit(REWARDS, 4))
    torch.testing.assert_close(found, means.clamp(1 / 8, 7 / 8))


def test_the_unit_turns_differences_of_rewards_into_those_of_advantages() -> None:
    # the first group's std is 0.5; a group of equal rewards has no unit, so that its values push nothing
    found = advantage_unit(group_normalized(REWARDS, 4), REWARDS, 4)
    assert found.tolist() == pytest.approx([1 / 0.5001] * 4 + [0.0] * 4)
    assert advantage_unit(group_centered(REWARDS, 4), REWARDS, 4).tolist() == [1.0] * 4 + [0.0] * 4


def said(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_explained_variance_is_by_position_and_against_the_groups_mean() -> None:
    trust = Trust(window=10)
    rewards = torch.tensor([1.0, 0.0])  # each is judged by the other: both are wrong by 1
    trust.add(said([0.0, 0.5, 1.0], [1.0, 0.5, 0.5]), rewards, 2)
    # squared errors 1 + 1, 0.25 + 0.25, 0 + 0.25 of 2
    assert trust.explained().tolist() == pytest.approx([0.0, 0.75, 0.875])
    # V_t - V_0 is 0.5 and 1, -0.5 and -0.5; R - V_0 is 1 and -1: (1.5 + 1) / (0.25 + 1 + 0.25 + 0.25)
    assert trust.calibration == pytest.approx(2.5 / 1.75)
    found = trust.metrics()
    assert found["critic/explained"] == pytest.approx((0.75 + 0.875) / 3)
    assert found["critic/explained/50"] == pytest.approx(0.75)
    assert found["critic/explained/100"] == pytest.approx(0.875)


def test_trust_is_the_root_of_what_the_tokens_explain_beyond_the_prompt() -> None:
    trust, rewards = Trust(window=10), torch.tensor([1.0, 0.0])
    good = said([0.5, 0.75, 1.0], [0.5, 0.5, 0.25])
    for batches in range(4):
        # errors 0.25 + 0.25 before the first token; then 0.0625 + 0.25 and 0 + 0.0625, mean 0.1875; batches agree, so
        # the standard error is 0
        expected = math.sqrt(1 - 0.1875 / 0.5) if batches >= 3 else 0.0
        assert trust.weight == pytest.approx(expected, abs=1e-9)
        trust.add(good, rewards, 2)


def test_what_the_tokens_explain_is_told_with_its_error_where_it_is_not_believed() -> None:
    trust, rewards = Trust(window=10), torch.tensor([1.0, 0.0])
    for better in (0.9, 0.6, 0.4):  # E is 1 - (0.01 + 0.16 + 0.36) / 0.75, and swings by batch
        trust.add(said([0.5, better], [0.5, 1 - better]), rewards, 2)
    explained, error = trust.told()
    assert explained == pytest.approx(1 - 0.53 / 0.75)
    assert error > explained > 0 and trust.weight == 0.0


def test_a_critic_that_says_the_same_everywhere_or_is_wrong_is_not_believed() -> None:
    rewards = torch.tensor([1.0, 0.0])
    for values in (said([0.3] * 3, [0.6] * 3), said([0.5, 0.4, 0.3], [0.5, 0.6, 0.7])):
        trust = Trust(window=5)
        for _ in range(5):
            trust.add(values, rewards, 2)
        assert trust.weight == 0.0
    assert Trust(window=5).metrics() == {} and Trust(window=5).weight == 0.0


def test_what_explains_one_batch_in_three_alone_is_believed_less_than_what_explains_them_all() -> (
    None
):
    rewards = torch.tensor([1.0, 0.0])
    none, some = said([0.5, 0.5], [0.5, 0.5]), said([0.5, 0.8], [0.5, 0.2])
    much = said([0.5, 1.0], [0.5, 0.0])  # as much as three times `some`, nearly
    steady, uneven = Trust(3), Trust(3)
    for _ in range(3):
        steady.add(some, rewards, 2)
    for values in (none, none, much):
        uneven.add(values, rewards, 2)
    # steady: 1 - 0.04 / 0.25 = 0.84; uneven: 1/3 less its standard error 1/3
    assert steady.weight == pytest.approx(math.sqrt(0.84), abs=1e-6)
    assert uneven.weight == pytest.approx(0.0, abs=1e-3)


def test_only_the_latest_batches_count_and_a_state_comes_back() -> None:
    rewards, trust = torch.tensor([1.0, 0.0]), Trust(window=3)
    for _ in range(5):
        trust.add(said([0.5, 0.1], [0.5, 0.9]), rewards, 2)
    assert len(trust.batches) == 3 and trust.weight == 0.0
    for _ in range(3):
        trust.add(said([0.5, 0.9], [0.5, 0.1]), rewards, 2)
    again = Trust(window=3)
    again.load(trust.state())
    assert again.weight == trust.weight > 0.5 and again.metrics() == trust.metrics()
