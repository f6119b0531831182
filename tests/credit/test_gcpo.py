"""Contrast by hand: its kinds, their bounds, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_credit.credit.gcpo import contrast
from t2i_credit.errors import UserError


@pytest.mark.parametrize(
    ("kind", "at_plus_two", "at_minus_two"),
    [
        ("k3", 4.389056, 1.135335),  # e^2 - 3, and e^-2 + 1
        ("abs", 2.0, 2.0),
        ("gain", 0.0, 2.0),  # d < 0: the positive prompt made the token likelier
        ("symmetric", 2.762196, 2.762196),  # cosh 2 - 1
    ],
)
def test_contrast_of_a_difference_of_two_nats(kind, at_plus_two, at_minus_two):
    logprobs, negative = torch.tensor([[-5.0, -3.0]]), torch.tensor([[-3.0, -5.0]])
    found = contrast(logprobs, negative, torch.ones(1, 2, dtype=torch.bool), kind=kind)
    expected = torch.tensor([[at_plus_two, at_minus_two]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "bound"), [("k3", 10.0), ("symmetric", 10.0), ("abs", 20.0), ("gain", 20.0)]
)
def test_contrast_is_bounded_even_for_impossible_tokens(kind, bound):
    logprobs, negative = torch.tensor([[-math.inf, -1.0]]), torch.tensor([[-1.0, -math.inf]])
    found = contrast(logprobs, negative, torch.ones(1, 2, dtype=torch.bool), kind=kind)
    # k3 at d = -20 is e^-20 + 19, clamped too; gain is 0 where the negative prompt wins
    assert found.tolist() == [[0.0 if kind == "gain" else bound, bound]]


def test_k3_keeps_contrasts_that_float32_would_lose_beside_one():
    # k3(1e-4) = 5.00017e-9; e^d - 1 in float32 is only known to 6e-8
    found = contrast(
        torch.zeros(1, 1), torch.full((1, 1), 1e-4), torch.ones(1, 1, dtype=torch.bool)
    )
    assert found.item() == pytest.approx(5.00017e-9, rel=2e-3)


def test_contrast_of_bfloat16_logprobs_is_taken_in_float32():
    # bfloat16 steps by 1/32 between 4 and 8, so its own difference would be 5
    logprobs, negative = (torch.tensor([[x]]).bfloat16() for x in (-5.0, -0.0078125))
    found = contrast(logprobs, negative, torch.ones(1, 1, dtype=torch.bool), kind="abs")
    assert found.dtype == torch.float32 and found.item() == 4.9921875


def test_full_kl_is_taken_as_given_but_never_below_zero():
    full_kl = torch.tensor([[-1e-8, 0.5, 2.0]])
    mask = torch.tensor([[True, True, False]])
    assert contrast(None, None, mask, kind="full_kl", full_kl=full_kl).tolist() == [[0.0, 0.5, 0.0]]


def test_contrast_refuses_unknown_kinds_and_missing_inputs_in_one_line():
    zeros, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(UserError, match="k3, abs, gain, symmetric, full_kl"):
        contrast(zeros, zeros, mask, kind="kl3")
    with pytest.raises(UserError, match="full_kl"):
        contrast(zeros, zeros, mask, kind="full_kl")
    with pytest.raises(UserError, match="negative_logprobs"):
        contrast(zeros, None, mask)
