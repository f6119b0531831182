"""The update's guard rails: nothing is changed once something is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from torch import Tensor
from toys import tiny_model
from updates import (
    ADVANTAGES,
    assert_equal,
    moved,
    parameters,
    run_update,
    sampled,
    settings,
    updater,
)

from t2i_credit.config.schema import Config
from t2i_credit.errors import TrainingError
from t2i_credit.interfaces import Rollout
from t2i_credit.models.embedded_model import EmbeddedModel


def refuses(config: Config, model: EmbeddedModel, rollout: Rollout, advantages: Tensor) -> str:
    """The message of an update that must leave the model as it is."""
    before = parameters(model)
    update = updater(model, config, lr=0.1)
    with pytest.raises(TrainingError) as caught:
        run_update(update, rollout, advantages)
    assert_equal(parameters(model), before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_the_guard_stops_before_any_update_when_sampling_and_training_disagree(
    micro_batch_size: int | None,
) -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": micro_batch_size})
    rollout = sampled(model, config)
    message = refuses(config, moved(model), rollout, ADVANTAGES)
    assert message.startswith("step 7: log-probs in training differ from those in sampling")
    assert "loss.ratio_guard allows 0.0001" in message


def test_the_guard_notices_a_single_token_in_the_last_micro_batch() -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": 3})
    rollout = sampled(model, config)
    stored = rollout.guided_logprobs.clone()
    stored[-1, -1] += 0.01
    changed = replace(rollout, guided_logprobs=stored)
    assert "by up to 0.01" in refuses(config, model, changed, ADVANTAGES)
    off = settings(loss={"ratio_guard": None})
    assert run_update(updater(model, off), changed, ADVANTAGES)["log_ratio_max"] == pytest.approx(
        0.01, 1e-2
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(bad: float) -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": 4})
    advantages = ADVANTAGES.clone()
    advantages[-1] = bad  # in the second micro-batch
    message = refuses(config, model, sampled(model, config), advantages)
    assert message.startswith("step 7: the loss is ")
    assert "stopped before the optimizer step" in message


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_optimizer_step(
    max_grad_norm: float | None,
) -> None:
    model, config = tiny_model(), settings(optim={"max_grad_norm": max_grad_norm})
    rollout = sampled(model, config)
    model.image_head.bias.register_hook(lambda grad: grad * math.inf)
    message = refuses(config, model, rollout, ADVANTAGES)
    assert message.startswith("step 7: the gradient is ")
