"""Credit by where the reward looked."""

from __future__ import annotations

import pytest
import torch

from t2i_credit.credit.reward_map import map_evidence
from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.weights import power_rank
from t2i_credit.errors import UserError

MAP = torch.tensor([[0.5, -2.0, 0.0, 1.0]]).repeat(3, 1)
ADVANTAGES = torch.tensor([1.5, -0.5, 0.0])
MASK = torch.ones(3, 4, dtype=torch.bool)


def test_size_ranks_by_magnitude_whatever_the_image_got():
    found = CREDIT["reward_map"].assign({"reward_map": MAP}, MASK, ADVANTAGES)
    assert found.argsort(1).tolist() == [[2, 0, 3, 1]] * 3
    assert torch.equal(found, power_rank(MAP.abs(), MASK))
    # in units of the reward or of anything else
    assert torch.equal(
        CREDIT["reward_map"].assign({"reward_map": 9 * MAP}, MASK, ADVANTAGES), found
    )


def test_signed_thanks_what_raised_a_good_image_and_blames_what_lowered_a_bad_one():
    found = CREDIT["reward_map"].assign({"reward_map": MAP}, MASK, ADVANTAGES, kind="signed")
    assert found[0].argsort().tolist() == [1, 2, 0, 3]  # better than its group: the +1 first
    assert found[1].argsort().tolist() == [3, 0, 2, 1]  # worse: the -2 first
    assert torch.equal(found[2], torch.ones(4))  # an image that nothing is pushed of
    evidence = map_evidence(MAP, ADVANTAGES, MASK, kind="signed")
    assert torch.equal(evidence[0], MAP[0]) and torch.equal(evidence[1], -MAP[1])


def test_tokens_that_the_judge_ignored_share_what_is_left():
    looked = torch.tensor([[0.0, 0.0, 0.9, -0.4, 0.0]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    found = CREDIT["reward_map"].assign({"reward_map": looked}, mask, torch.ones(1))[0]
    assert found[0] == found[1] == found[4] < found[3] < found[2]


def test_a_mass_below_the_top_is_refused():
    with pytest.raises(UserError, match="top"):
        CREDIT["reward_map"].assign({"reward_map": MAP}, MASK, ADVANTAGES, top=0.9, mass=0.5)
