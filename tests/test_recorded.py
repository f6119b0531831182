"""The losses of trl and the weights of DGPO, as recorded by record_losses.py: what ours must come to."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from record_losses import FILE, KL_COEFS, LONGEST, LOSS_TYPES, dgpo, inputs, trl_losses

from t2i_credit.credit.dgpo import distribution_guided, normalized_entropy
from t2i_credit.losses import policy_loss
from t2i_credit.rollout.logprobs import hellinger

RECORDED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
AGGREGATE = {"grpo": "sequence", "bnpo": "token", "dapo": "token", "dr_grpo": "constant"}


def given(name: str) -> torch.Tensor:
    return torch.tensor(RECORDED["inputs"][name])


def named(one: dict[str, Any]) -> str:
    return f"{one['loss_type']}-{one['importance_sampling_level']}-{one['beta']}"


def test_every_loss_ratio_and_kl_was_recorded():
    wanted = {
        f"{loss}-{level}-{beta}"
        for loss in LOSS_TYPES
        for level in ("token", "sequence")
        for beta in KL_COEFS
    }
    assert {named(one) for one in RECORDED["losses"]} == wanted
    assert len(RECORDED["losses"]) == 16


@pytest.mark.parametrize("one", RECORDED["losses"], ids=named)
def test_loss_and_gradient_are_those_of_trl(one: dict[str, Any]) -> None:
    clip_low, clip_high = RECORDED["clip"]
    logprobs = given("logprobs").requires_grad_(True)
    loss, metrics = policy_loss(
        logprobs,
        given("old_logprobs"),
        given("token_advantages"),
        given("mask"),
        clip_low=clip_low,
        clip_high=clip_high,
        ratio=one["importance_sampling_level"],
        aggregate=AGGREGATE[one["loss_type"]],
        ref_logprobs=given("ref_logprobs"),
        kl_coef=one["beta"],
        max_tokens=LONGEST,
    )
    loss.backward()
    assert metrics["clip_frac"] > 0  # both sides of the clip have a say in these vectors
    torch.testing.assert_close(loss.detach(), torch.tensor(one["loss"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(logprobs.grad, torch.tensor(one["gradient"]), rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("one", RECORDED["dgpo"], ids=lambda one: f"tau {one['tau']}")
def test_dgpo_weights_are_those_of_the_formula_written_out(one: dict[str, Any]) -> None:
    logits, ref, mask, *wanted = (
        torch.tensor(one[name])
        for name in ("logits", "ref_logits", "mask", "hellinger", "entropy", "credit")
    )
    distance, undecided = hellinger(logits, ref), normalized_entropy(logits)
    credit = distribution_guided(distance, undecided, mask, tau=one["tau"], kappa=one["kappa"])
    for found, expected in zip((distance, undecided, credit), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    assert credit.max() > 1.05 and float(credit.std()) > 0.01


def test_the_record_is_what_the_recorder_writes() -> None:
    trl = pytest.importorskip("trl", reason="needs the pip extra text")
    if trl.__version__ != RECORDED["trl"]:
        pytest.skip(f"recorded from trl {RECORDED['trl']}, this is {trl.__version__}")
    again = {name: array.tolist() for name, array in inputs().items()}
    assert again == RECORDED["inputs"]
    for found, expected in zip(trl_losses(again), RECORDED["losses"], strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
        for row, wanted in zip(found["gradient"], expected["gradient"], strict=True):
            assert row == pytest.approx(wanted, abs=1e-12)
    for one in RECORDED["dgpo"]:
        written = dgpo(one["tau"], one["kappa"])["credit"]
        torch.testing.assert_close(torch.tensor(written), torch.tensor(one["credit"]))
