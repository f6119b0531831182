"""Credit with a critic's values, by hand."""

from __future__ import annotations

import torch

from t2i_credit.credit.entry import token_advantages
from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.value import VALUE

ENTROPY = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[True] * 5, [True] * 5, [True, True, True, False, False]])
ADVANTAGES = torch.tensor([1.0, -0.5, 0.0])


def of(moved: torch.Tensor, **parameters: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Credit and token advantages."""
    fields = {"entropy": ENTROPY, "value_advantage": moved}
    own = {"strength": parameters.pop("strength")} if "strength" in parameters else {}
    credit = VALUE.assign(fields, MASK, ADVANTAGES, **own)
    return credit, VALUE.token_advantages(fields, credit, MASK, ADVANTAGES, parameters)


def test_without_knowledge_it_is_entropy_rank_bit_for_bit() -> None:
    plain = CREDIT["entropy_rank"].assign({"entropy": ENTROPY}, MASK, ADVANTAGES)
    credit, pushed = of(torch.zeros(3, 5))
    assert torch.equal(credit, plain)
    assert torch.equal(pushed, token_advantages(ADVANTAGES, plain))


def test_what_a_token_did_to_the_value_is_added_to_the_advantage_and_both_are_weighed() -> None:
    moved = torch.tensor([[0.5, -0.5, 0.0, 0.1, 0.0]]).repeat(3, 1)
    credit, pushed = of(moved, change=2.0)
    expected = (ADVANTAGES[:, None] + torch.tensor([[1.0, -1.0, 0.0, 0.2, 0.0]])) * credit
    torch.testing.assert_close(pushed, expected)
    assert (
        pushed[2, :2] != 0
    ).all()  # an image of average reward still has better and worse tokens
    assert (pushed[2, 3:] == 0).all()  # off the mask
    even, pushed = of(moved, change=2.0, strength=0.0)
    assert torch.equal(even, MASK.float())
    torch.testing.assert_close(pushed[0], torch.tensor([2.0, 0.0, 1.0, 1.2, 1.0]))
