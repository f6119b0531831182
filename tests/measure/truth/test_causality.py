"""Causality: redraws and continuations on a toy generator, and the whole measure where it is known which token decides."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import PROMPTS, wide_rollout

from t2i_credit.interfaces import Prompt
from t2i_credit.measure.truth.causality import (
    BRANCHES,
    MODES,
    Sampled,
    causality,
    change_counts,
    continued,
    decodings,
    ranked,
    redraw,
)
from t2i_credit.rollout.sampling import sample_rollout, sampling_noise

SAMPLING: dict[str, Any] = {"cfg_scale": 2.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

# Parts ------------------------------------------------------------------------------------------------------------


def test_sampling_on_without_a_change_gives_the_original_back() -> None:
    model, rollout = wide_rollout(seed=3)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    noise = sampling_noise(3, 0, *rollout.tokens.shape)
    nothing = torch.zeros_like(rollout.mask)
    again = continued(model, condition, rollout.tokens, nothing, noise, **SAMPLING)
    assert torch.equal(again, rollout.tokens)


def test_a_change_leaves_what_came_before_it_and_what_was_given() -> None:
    model, rollout = wide_rollout(seed=3)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    noise = sampling_noise(3, 0, *rollout.tokens.shape)
    changed, forced = rollout.tokens.clone(), torch.zeros_like(rollout.mask)
    changed[:, 2], forced[:, 2] = (changed[:, 2] + 1) % 32, True
    after = continued(model, condition, changed, forced, noise, **SAMPLING)
    assert torch.equal(after[:, :3], changed[:, :3])
    assert (after[:, 3:] != rollout.tokens[:, 3:]).any()


def test_both_branches_draw_the_same_where_both_prompts_are_the_same() -> None:
    model, rollout = wide_rollout()
    noise = torch.rand(*rollout.tokens.shape, 1, dtype=torch.float64).expand(-1, -1, 2)
    texts = [p.text for p in PROMPTS]
    found = redraw(model, model.condition(texts, texts), rollout.tokens, noise)
    assert torch.equal(found["positive"], found["negative"])
    assert (found["positive"] != rollout.tokens).any()
    other = redraw(model, model.condition(texts, [None] * 4), rollout.tokens, noise)
    assert torch.equal(other["positive"], found["positive"])
    assert not torch.equal(other["negative"], found["negative"])


def test_only_tokens_that_really_change_are_picked_and_equally_many_for_every_score() -> None:
    changeable = torch.tensor([[True, True, True, True, False], [True, True, False, False, False]])
    counts = change_counts(changeable, 0.6)  # 3 of 5, but at most half of the 4 and of the 2
    assert counts.tolist() == [2, 1]
    score = torch.tensor([[1.0, 4.0, 3.0, 2.0, 9.0], [2.0, 1.0, 9.0, 9.0, 9.0]])
    top = ranked(score, changeable, counts, highest=True, seed=0)
    assert top.tolist() == [[False, True, True, False, False], [True, False, False, False, False]]
    low = ranked(score, changeable, counts, highest=False, seed=0)
    assert low.tolist() == [[True, False, False, True, False], [False, True, False, False, False]]


def test_ties_are_broken_at_random() -> None:
    tied = torch.ones(200, 4)
    picked = ranked(tied, tied.bool(), torch.ones(200), highest=True, seed=1)
    assert picked.sum(1).eq(1).all()
    # 50 each on average, standard deviation 6.1
    assert (picked.sum(0) - 50).abs().max() < 25


def test_samples_that_are_sampled_on_in_batches_meet_their_own_noise() -> None:
    model, rollout = wide_rollout(seed=3)
    sampled = Sampled(
        model, rollout, torch.zeros(16), 3, SAMPLING, lambda tokens, rows: tokens[:, 0], 3
    )
    after = sampled.changed(rollout.tokens + 1, torch.zeros_like(rollout.mask))
    assert all(torch.equal(after[mode], rollout.tokens) for mode in MODES)


# A known token decides --------------------------------------------------------------------------------------------

TOKENS, CAUSE, DECIDER = 10, 2, 5
OWN, POSITIVE, NEGATIVE = (
    0,
    1,
    2,
)  # the code that guided sampling, and either branch alone, is sure to draw
VALUE = torch.tensor([1.0, 0.25, 0.0])  # the reward, by the decider's code


@dataclass
class Told:
    """A condition, or a decoding state, of so many prompts or samples."""

    prompts: int
    taken: list[Tensor]

    def select(self, index: Tensor) -> Told:
        return Told(len(index), [])


class Decided:
    """A generator of ten tokens of three codes whose every draw is known.

    Guided sampling (scale 2) draws code 0, the positive branch alone 1, the negative one 2: every redraw is another code.
    The exception is the decider: it only comes out as 0 if the cause was 0, and as 1 if not.
    """

    grid, codebook_size, device = (2, 5), 3, torch.device("cpu")

    def condition(self, prompts: Any, negatives: Any) -> Told:
        return Told(len(prompts), [])

    def prefill(self, condition: Told) -> Told:
        return condition

    def expand(self, state: Told, group_size: int) -> Told:
        return Told(state.prompts * group_size, [])

    def advance(self, state: Told, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        state.taken += [] if tokens is None else [tokens]
        positive = torch.tensor([0.0, 40.0, -80.0]).repeat(state.prompts, 1)
        negative = torch.tensor([-200.0, 0.0, 40.0]).repeat(state.prompts, 1)
        if len(state.taken) == DECIDER:  # 2 c - u is (200, 80, -200): 160 more on code 1 lead by 40
            positive[state.taken[CAUSE] != OWN, POSITIVE] += 80.0
        return positive, negative

    def decode(self, tokens: Tensor) -> Tensor:
        return torch.zeros(len(tokens), 3, 2, 5)


def naming(*places: int) -> Tensor:
    """(B, T) scores that rank these tokens in this order before all others."""
    score = torch.zeros(TOKENS)
    score[list(places)] = torch.arange(len(places), 0, -1.0)
    return score.expand(400, TOKENS)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """400 images of 100 prompts, a fifth of the tokens changed: two of ten."""
    model, prompts = Decided(), [Prompt(f"prompt {i}") for i in range(100)]
    rollout = sample_rollout(model, prompts, group_size=4, cfg_scale=2.0, seed=0)
    assert (rollout.tokens == OWN).all()

    def score(tokens: Tensor) -> Tensor:
        return VALUE[tokens[:, DECIDER]]

    rewards = score(rollout.tokens)
    sampled = Sampled(model, rollout, rewards, 0, SAMPLING, lambda tokens, rows: score(tokens), 7)
    scores = {
        "random": torch.rand(400, TOKENS, generator=torch.Generator().manual_seed(0)),
        "entropy": naming(8, 9, CAUSE, DECIDER),
        "decider": naming(DECIDER, 8, CAUSE),
        "cause": naming(CAUSE, 8, DECIDER),
    }
    calls: list[int] = []
    found = causality(sampled, scores, share=0.2, repeats=1, seed=0, done=lambda: calls.append(1))
    assert len(calls) == decodings(len(scores), 1)
    return found


def equal(value: float) -> Any:
    """A figure of prompts that are all alike, which gives no interval."""
    return pytest.approx([value, math.nan, math.nan], nan_ok=True)


LOST = {"positive": 0.75, "negative": 1.0}  # by the decider's redraw


@pytest.mark.parametrize(("branch", "mode"), list(itertools.product(BRANCHES, MODES)))
def test_credit_on_the_token_that_decides_shows_the_full_drop_and_the_rest_none(
    measured: dict[str, Any], branch: str, mode: str
) -> None:
    rows = measured[branch][mode]["assigners"]
    assert measured[branch][mode]["changed"] == 2.0
    assert rows["decider"]["highest"] == equal(LOST[branch])
    assert rows["decider"]["lowest"] == equal(0.0)
    assert rows["entropy"]["highest"] == equal(0.0)  # it names two tokens that decide nothing
    assert rows["decider"]["ahead_of_entropy"] == equal(LOST[branch])
    assert "ahead_of_entropy" not in rows["entropy"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_token_that_decides_through_a_later_one_shows_only_where_the_rest_is_sampled_on(
    measured: dict[str, Any], branch: str
) -> None:
    kept, continued = (measured[branch][mode]["assigners"]["cause"] for mode in MODES)
    assert kept["highest"] == equal(0.0)
    assert continued["highest"] == equal(
        0.75
    )  # the decider comes out as 1, whichever branch redrew the cause
    assert kept["lowest"] == continued["lowest"] == equal(0.0)


@pytest.mark.parametrize(
    ("branch", "mode", "expected"),
    [
        # the decider is one of two of ten tokens
        ("positive", "kept", 0.2 * 0.75),
        ("negative", "kept", 0.2 * 1.0),
        # decider or cause: all but 28 of 45 pairs; the cause alone: 8 of 45
        ("positive", "continued", 17 / 45 * 0.75),
        ("negative", "continued", 0.2 * 1.0 + 8 / 45 * 0.75),
    ],
)
def test_random_tokens_show_their_share_of_the_drop(
    measured: dict[str, Any], branch: str, mode: str, expected: float
) -> None:
    rows = measured[branch][mode]["assigners"]
    for end in ("highest", "lowest"):
        # standard error at most 0.5 / sqrt(400)
        assert rows["random"][end][0] == pytest.approx(expected, abs=0.07)
    chance = sum(rows["random"][end][0] for end in ("highest", "lowest")) / 2
    assert rows["random"]["ratio"][0] == pytest.approx(rows["random"]["highest"][0] / chance)
    times = rows["decider"]["highest"][0] / chance
    assert rows["decider"]["ratio"][0] == pytest.approx(times)
    low, high = rows["decider"]["ratio"][1:]
    assert low < LOST[branch] / expected < high
