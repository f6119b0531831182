"""Credit that asks for the policy's reference: as training takes it, in parts or at once, and before any training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from toys import PROMPTS, WideConfig, tiny_model

from t2i_credit.config.schema import Config, parse_config
from t2i_credit.credit.critical import critical_mask, entropy_gradient, group_similarity
from t2i_credit.credit.table import CREDIT
from t2i_credit.interfaces import Rollout
from t2i_credit.measure.truth.assigners import parse_assigner, rollout_needs
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.training.policy import Policy
from t2i_credit.training.update import PolicyUpdate

SPOILT = 4  # another seed of the toy's weights: a policy that has gone far
ADVANTAGES = torch.tensor([1.0, -1.0, 0.5, -0.5]).repeat(len(PROMPTS))


def settings(credit: str, form: str, **params: Any) -> Config:
    return parse_config(
        {
            "credit": {"name": credit, **params},
            "rollout": {"group_size": 4, "cfg_scale": 2.0, "temperature": 0.9},
            "loss": {"policy": form},
        }
    )


def sampled(config: Config) -> tuple[Policy, Rollout]:
    """A policy that has left its reference, and four images of each prompt."""
    model = tiny_model(WideConfig)
    reference = tiny_model(WideConfig, seed=SPOILT).requires_grad_(False)
    rollout = sample_rollout(
        model, PROMPTS, group_size=4, cfg_scale=2.0, temperature=0.9, seed=1, guided_entropy=True
    )
    return Policy.of(config, model, reference), rollout


@pytest.mark.parametrize("form", ["guided", "conditional"])
@pytest.mark.parametrize(
    ("credit", "params"), [("distribution_guided", "tau=0.1"), ("critical_tokens", "fraction=0.2")]
)
def test_credit_against_the_reference_is_that_of_training(
    credit: str, params: str, form: str
) -> None:
    key, value = params.split("=")
    config = settings(credit, form, **{key: float(value)})
    policy, rollout = sampled(config)
    update = PolicyUpdate(
        config,
        model=policy.model,
        sampler=policy.model,
        reference=policy.reference,
        credit=CREDIT[credit],
        optimizer=torch.optim.SGD(policy.model.parameters(), lr=0.0),
        accelerator=Accelerator(cpu=True),
    )
    trained = update.credit_of(rollout, ADVANTAGES)
    assert trained.std() > 0.05  # it is not uniform
    assigner = parse_assigner(f"{credit},{params}", has_left=True)
    for one in (policy, replace(policy, batch_size=8)):  # all at once, and two prompts at a time
        assert torch.allclose(assigner(rollout, ADVANTAGES, one), trained, atol=1e-5)


def test_the_forms_of_the_policy_and_the_negative_prompts_count() -> None:
    policy, rollout = sampled(settings("distribution_guided", "guided"))
    guided = policy.fields({"hellinger", "normalized_entropy"}, rollout)
    plain = replace(policy, form="conditional").fields({"hellinger", "normalized_entropy"}, rollout)
    other = [replace(p, negative="a blue circle") for p in rollout.prompts]
    against = policy.fields({"hellinger", "normalized_entropy"}, replace(rollout, prompts=other))
    for name, value in guided.items():
        assert value.shape == rollout.tokens.shape and value.min() >= 0 and value.max() <= 1
        assert not torch.allclose(value, plain[name], atol=1e-3)
        assert not torch.allclose(value, against[name], atol=1e-3)


def test_before_any_training_critical_tokens_are_defined_and_weigh_the_same() -> None:
    policy, rollout = sampled(settings("critical_tokens", "guided"))
    assigner = parse_assigner("critical_tokens,fraction=0.2")
    assert "guided_entropy" in rollout_needs([assigner])
    own = replace(policy, reference=policy.model)  # the ratio to itself is 1
    credit = assigner(rollout, ADVANTAGES, own)
    assert rollout.guided_entropy is not None
    chosen = critical_mask(
        entropy_gradient(rollout.guided_entropy, policy.model.grid),
        group_similarity(policy.model.codebook[rollout.tokens], 4),
        rollout.mask,
        fraction=0.2,
    )
    assert chosen.sum(1).min() >= 2 and chosen.sum(1).max() <= 3  # of six tokens
    assert torch.allclose(credit, chosen * 6 / chosen.sum(1, keepdim=True), atol=1e-5)
