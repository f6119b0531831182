"""The gradients of a truth measurement: on the toy generator, and where signal, noise and bias were planted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import PROMPTS, wide_rollout

from t2i_credit.config.schema import parse_config
from t2i_credit.credit.entry import CreditEntry
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.measure.truth.assigners import Assigner
from t2i_credit.measure.truth.gradients import GradientStore, gradient_agreement, policy_gradients
from t2i_credit.training.policy import Policy


def test_stored_gradients_keep_their_products() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(3, 5000, generator=draw) * torch.tensor([[1.0], [1e-6], [1e4]]) for _ in "ab"
    )
    store = GradientStore()
    for i in range(3):
        store.add("a", a[i])
        store.add("b", b[i])
    lengths = np.outer(a.norm(dim=1), b.norm(dim=1))
    error = (store.products("a", "b") - (a @ b.T).double().numpy()) / lengths
    assert np.abs(error).max() < 1e-4
    assert np.diag(store.products("a", "a")) == pytest.approx(a.square().sum(1).numpy(), rel=1e-3)


def test_the_uniform_gradient_is_the_policy_gradient_and_credit_changes_it() -> None:
    model, rollout = wide_rollout()
    advantages = torch.linspace(-1, 1, len(rollout))
    config = parse_config({"loss": {"policy": "conditional"}})
    late = torch.zeros(rollout.tokens.shape)
    late[:, -1] = 6.0
    pushed = {"uniform": advantages[:, None] * rollout.mask, "late": advantages[:, None] * late}
    found = policy_gradients(Policy.of(config, model, None), rollout, pushed, config)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    logprobs = model(condition, rollout.tokens, want=["logprobs"])["logprobs"]
    loss = -(advantages[:, None] * logprobs).mean()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    whole = torch.cat(
        [
            torch.zeros(p.numel()) if g is None else g.flatten()
            for g, p in zip(gradients, trained, strict=True)
        ]
    )
    assert torch.allclose(found["uniform"], whole, atol=1e-7)
    assert torch.nn.functional.cosine_similarity(found["late"], whole, dim=0) < 0.95


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
@pytest.mark.parametrize(
    # two groups of four, parts of groups, and 3 samples of 6 tokens under two prompts
    "train",
    [{"micro_batch_size": 8}, {"micro_batch_size": 3}, {"micro_batch_tokens": 36}],
)
def test_micro_batches_add_up_to_the_gradient_of_the_batch(
    train: dict[str, int], aggregate: str
) -> None:
    model, rollout = wide_rollout()
    advantages = torch.linspace(-1, 1, len(rollout))
    credits = {"uniform": rollout.mask.float(), "late": torch.arange(6).expand(16, 6) / 2.5}
    pushed = {name: advantages[:, None] * credit for name, credit in credits.items()}
    passes: list[int] = []
    hook = model.register_forward_hook(lambda module, given, out: passes.append(len(given[1])))
    configs = [
        parse_config(
            {"loss": {"aggregate": aggregate}, "rollout": {"cfg_scale": 2.0}, "train": how}
        )
        for how in ({}, train)
    ]
    whole, parts = (
        policy_gradients(Policy.of(config, model, None), rollout, pushed, config)
        for config in configs
    )
    hook.remove()
    assert passes == [16, 8, 8] if train == {"micro_batch_size": 8} else [16, 3, 3, 3, 3, 3, 1]
    for name in credits:
        assert torch.allclose(whole[name], parts[name], atol=1e-6)


# Planted signal, noise and bias -----------------------------------------------------------------------------------

SIGNAL, ALSO, NOISE = (
    0,
    1,
    2,
)  # the coordinates that every batch shares, and the first that one batch alone has


class Linear(nn.Module):
    """A policy whose log-prob of a code is a parameter of its own, so that a token's gradient is a unit vector."""

    grid, codebook_size, codebook = (1, 3), 64, torch.eye(64)

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(self.codebook_size))

    def condition(self, prompts: Any, negatives: Any) -> Any:
        return SimpleNamespace(select=lambda index: None)

    def forward(self, condition: None, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
        return {"logprobs": self.values[tokens]}


def planted(count: int) -> Iterator[tuple[Rollout, Tensor]]:
    """Batches of two images of three tokens: two of the signal, and one whose code no other batch has."""
    for number in range(count):
        tokens = torch.tensor([[SIGNAL, ALSO, NOISE + number], [3, 2, 1]])
        nothing = torch.zeros(2, 3)
        rollout = Rollout(
            prompts=[Prompt("a red circle")] * 2,
            group_size=2,
            tokens=tokens,
            mask=torch.ones(2, 3, dtype=torch.bool),
            logprobs=nothing,
            negative_logprobs=nothing,
            guided_logprobs=nothing,
            sampling_logprobs=nothing,
            entropy=nothing,
            images=torch.zeros(2, 3, 4, 4),
        )
        yield rollout, torch.tensor([1.0, 0.0])  # the second image teaches nothing


def weighing(*weights: float) -> Assigner:
    """A credit of the same three weights everywhere."""
    entry = CreditEntry(
        assign=lambda fields, mask, advantages: torch.tensor(weights).expand(mask.shape),
        description="",
        paper="",
    )
    return Assigner(",".join(map(str, weights)), entry)


# by hand, in units of 1/6 (two images of three tokens): a batch's gradient is w0 SIGNAL + w1 ALSO + w2 its own
# coordinate, so |mean|^2 is w0^2 + w1^2, the noise w2^2, and uniform's mean (1, 1)
PLANTED = {
    "uniform": (1.0, 1.0, 1.0),
    "clean": (1.25, 1.25, 0.5),  # less noise, the same direction
    "turned": (2.5, 0.0, 0.5),  # as little noise, more signal, half of it in the wrong direction
}


@pytest.fixture(scope="module")
def agreement() -> dict[str, Any]:
    """{name of PLANTED: its figures}, and those of random weights; 21 batches."""
    credits = {name: weighing(*weights) for name, weights in PLANTED.items()}
    config = parse_config({"loss": {"policy": "conditional"}})
    calls: list[int] = []
    found = gradient_agreement(
        Policy.of(config, Linear(), None),
        planted(21),
        [credits["clean"], credits["turned"]],
        config,
        seed=0,
        done=lambda: calls.append(1),
    )
    assert (found["batches"], found["samples"], found["coordinates"]) == (21, 2, 64)
    assert len(calls) == 21
    rows = found["assigners"]
    return {name: rows[credit.name] for name, credit in credits.items() if name != "uniform"} | {
        name: rows[name] for name in ("uniform", "random")
    }


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_signal_is_measured_as_worked_out_by_hand(
    agreement: dict[str, Any], name: str
) -> None:
    first, second, own = PLANTED[name]
    signal, noise, found = first**2 + second**2, own**2, agreement[name]
    # every batch is like every other, so that the intervals have no width; float16 rounds by a two-thousandth
    assert found["snr"] == pytest.approx([signal / noise] * 3, rel=5e-3)
    assert found["cosine"] == pytest.approx([signal / (signal + noise)] * 3, rel=2e-3)
    # twenty others together: (20, 20) of the signal, and twenty coordinates of 1
    large = 20 * (first + second) / math.sqrt((signal + noise) * (2 * 20**2 + 20))
    assert found["large"] == pytest.approx([large] * 3, rel=2e-3)


def test_a_clean_gradient_that_points_elsewhere_is_found_biased(agreement: dict[str, Any]) -> None:
    assert agreement["uniform"]["direction"] == pytest.approx([1.0] * 3, rel=2e-3)
    assert agreement["clean"]["direction"] == pytest.approx([1.0] * 3, rel=2e-3)
    # (2.5, 0) against (1, 1)
    assert agreement["turned"]["direction"] == pytest.approx([1 / math.sqrt(2)] * 3, rel=2e-3)
    # by its cleanness alone it leads: 25 against 12.5 and 2
    assert agreement["turned"]["snr_ahead"] == pytest.approx([23.0] * 3, rel=5e-3)
    assert agreement["clean"]["snr_ahead"] == pytest.approx([10.5] * 3, rel=5e-3)
    assert agreement["turned"]["times_uniform"] == pytest.approx([12.5] * 3, rel=5e-3)
    assert agreement["clean"]["times_uniform"] == pytest.approx([6.25] * 3, rel=5e-3)
    assert not {"snr_ahead", "times_uniform"} & set(agreement["uniform"])


def test_random_weights_only_add_noise(agreement: dict[str, Any]) -> None:
    assert agreement["random"]["snr"][2] < agreement["uniform"]["snr"][0]
    low, high = agreement["random"]["direction"][1:]
    assert low < 1.0 < high
