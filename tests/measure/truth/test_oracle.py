"""The oracle where the truth is known: pictures of coin flips, of which one decides the reward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from t2i_credit.errors import UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.intervals import bootstrap
from t2i_credit.measure.truth.causality import Sampled
from t2i_credit.measure.truth.measures import TruthSettings
from t2i_credit.measure.truth.oracle import oracle, row_values
from t2i_credit.rollout.sampling import sample_rollout

SAMPLING: dict[str, Any] = {"cfg_scale": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
PROMPTS, SIZE, CONTINUATIONS = 30, 4, 64
DECIDER = 2  # of six tokens in three rows: the first of the second row


class Flips:
    """Draws 0 or 1, whatever came before; conditions and states only count rows."""

    grid, codebook_size = (3, 2), 2
    device, codebook = torch.device("cpu"), torch.eye(2)
    prompts = PROMPTS

    def __init__(self, prompts: int = PROMPTS) -> None:
        self.prompts = prompts

    def condition(self, texts: list[str], negatives: Any) -> Flips:
        return Flips(len(texts))

    def select(self, index: Tensor) -> Flips:
        return Flips(len(index))

    def prefill(self, condition: Flips) -> Flips:
        return condition

    def expand(self, state: Flips, group_size: int) -> Flips:
        return Flips(state.prompts * group_size)

    def advance(self, state: Flips, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.zeros(state.prompts, 2), torch.zeros(state.prompts, 2)

    def decode(self, tokens: Tensor) -> Tensor:
        return torch.zeros(len(tokens), 3, 6, 4)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Rewards (B,), values and squared errors (B, 4), and what the oracle says of three credits."""
    model = Flips()
    prompts = [Prompt(f"prompt {i}") for i in range(PROMPTS)]
    rollout = sample_rollout(model, prompts, group_size=SIZE, cfg_scale=1.0, seed=0)

    def score(tokens: Tensor, rows: Tensor) -> Tensor:
        assert len(rows) == len(tokens) and int(rows.max()) < len(rollout)
        return tokens[:, DECIDER].float()

    rewards = score(rollout.tokens, torch.arange(len(rollout)))
    sampled = Sampled(model, rollout, rewards, 0, SAMPLING, score, 7)
    calls: list[int] = []
    values, errors = row_values(sampled, CONTINUATIONS, seed=0, done=lambda: calls.append(1))
    assert len(calls) == 3
    advantages = 2 * rewards - 1
    exact = torch.zeros(rollout.tokens.shape)
    exact[:, DECIDER] = advantages
    draw = torch.Generator().manual_seed(0)
    pushed = {
        "exact": exact,
        "uniform": advantages[:, None].expand_as(exact),
        "random": torch.randn(exact.shape, generator=draw),
        "nothing": torch.zeros_like(exact),
    }
    found = oracle(values, errors, pushed, SIZE)
    return {"rewards": rewards.numpy(), "values": values, "errors": errors, **found}


def test_the_value_is_a_half_until_the_coin_has_fallen_and_then_the_reward(measured: Any) -> None:
    values, errors, rewards = (measured[name] for name in ("values", "errors", "rewards"))
    assert values.shape == errors.shape == (PROMPTS * SIZE, 4)
    # before the first row four samples share their continuations, after it each has its own: 0.5 / sqrt(256), / sqrt(64)
    for row, spread in ((0, 1 / 32), (1, 1 / 16)):
        assert np.abs(values[:, row] - 0.5).max() < 5 * spread
        assert np.sqrt(errors[:, row]) == pytest.approx(spread, rel=0.1)
        assert values[:, row].mean() == pytest.approx(0.5, abs=0.02)
    assert (values[::SIZE, 0] == values[1::SIZE, 0]).all()
    for row in (2, 3):
        assert (values[:, row] == rewards).all() and (errors[:, row] == 0).all()


def test_exact_credit_reaches_the_ceiling_and_the_others_their_share(measured: Any) -> None:
    rows = measured["assigners"]
    # true advantages: 0, +-1/2, 0, mean square 1/12; noise by row 1/1024 + 1/256, 1/256, 0, mean 1/341
    ceiling = math.sqrt((1 / 12) / (1 / 12 + 1 / 341))
    assert measured["ceiling"][0] == pytest.approx(ceiling, abs=0.01)
    assert rows["exact"]["of_ceiling"][0] == pytest.approx(1.0, abs=0.02)
    assert rows["exact"]["correlation"][0] == pytest.approx(ceiling, abs=0.02)
    # the same push on three rows, of which one did it
    assert rows["uniform"]["of_ceiling"][0] == pytest.approx(1 / math.sqrt(3), abs=0.03)
    assert abs(rows["random"]["correlation"][0]) < 0.2
    assert rows["nothing"]["correlation"] == [0.0, 0.0, 0.0]
    for name in ("exact", "uniform"):
        value, low, high = rows[name]["correlation"]
        assert low < value < high
    assert measured["decided"] == pytest.approx([0.0, 1.0, 0.0], abs=0.03)
    assert measured["error"] == pytest.approx((1 / 32 + 1 / 16) / 3, rel=0.1)


def test_values_that_are_noise_alone_have_no_ceiling() -> None:
    draw = np.random.default_rng(0)
    values = 0.5 + 0.1 * draw.standard_normal((8, 3))
    found = oracle(values, np.full((8, 3), 0.02), {"uniform": torch.ones(8, 4)}, 2)
    assert math.isnan(found["ceiling"][0])


def test_a_bootstrap_of_sums_is_over_prompts() -> None:
    sums = np.array([[1.0, 1.0], [1.0, 3.0]])  # the mean of two prompts is 1 and 3
    value, low, high = bootstrap(lambda s: s[..., 1] / s[..., 0], sums)
    assert (value, low, high) == (2.0, 1.0, 3.0)
    assert math.isnan(bootstrap(lambda s: s[..., 1], sums[:1])[1])


@pytest.mark.parametrize("few", [1, 7, -8])
def test_too_few_continuations_are_one_line(few: int) -> None:
    with pytest.raises(UserError, match=rf"^--oracle: {few}; 0 \(none\) or at least 8"):
        TruthSettings(oracle=few)
