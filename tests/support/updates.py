"""Updates on a toy rollout, and what they leave in gradients and parameters. Holds no test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from toys import PROMPTS, tiny_model

from t2i_credit.config.plugins import find_plugin
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.credit.entry import as_entry
from t2i_credit.credit.table import CREDIT
from t2i_credit.interfaces import Rollout
from t2i_credit.models.embedded_model import EmbeddedModel
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.training.update import PolicyUpdate

SIZE = 2  # samples of each of the four prompts, on 2 x 2 tokens
ADVANTAGES = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.0, 0.0, -2.0, 2.0])
CONTRAST = {"name": "guidance_contrast"}
DISTRIBUTION = {"name": "distribution_guided"}
CRITICAL = {"name": "critical_tokens", "fraction": 0.25}  # one of four tokens of each kind


def settings(**sections: Mapping[str, Any]) -> Config:
    """A configuration with these keys changed; gradients are not clipped, so that they can be compared."""
    base: dict[str, dict[str, Any]] = {
        "rollout": {"group_size": SIZE, "cfg_scale": 2.0, "temperature": 0.9},
        "optim": {"max_grad_norm": None},
    }
    return parse_config({k: {**base.get(k, {}), **sections.get(k, {})} for k in {*base, *sections}})


def sampled(model: EmbeddedModel, config: Config, **changed: Any) -> Rollout:
    chosen = {
        "group_size": SIZE,
        "cfg_scale": config.rollout.cfg_scale,
        "temperature": config.rollout.temperature,
        "seed": 1,
        "guided_entropy": True,
    }
    return sample_rollout(model, PROMPTS, **{**chosen, **changed})


def updater(
    model: EmbeddedModel,
    config: Config,
    *,
    reference: EmbeddedModel | None = None,
    lr: float = 0.0,
) -> PolicyUpdate:
    """An update by plain gradient descent; the default rate leaves the parameters alone and the gradient behind."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return PolicyUpdate(
        config,
        model=model,
        sampler=model,
        reference=reference,
        credit=as_entry(find_plugin(config.credit.name, CREDIT, "credit.name")),
        optimizer=torch.optim.SGD(trained, lr=lr),
        accelerator=Accelerator(cpu=True),
    )


def run_update(
    update: PolicyUpdate, rollout: Rollout, advantages: Tensor, *, step: int = 7
) -> dict[str, float]:
    """The metrics of an update, with the credit that it found first."""
    return update(step, rollout, advantages, update.credit(rollout, advantages))


def updated(
    config: Config,
    *,
    reference: EmbeddedModel | None = None,
    lr: float = 0.0,
    advantages: Tensor = ADVANTAGES,
    before: Callable[[EmbeddedModel], None] = lambda model: None,
) -> tuple[EmbeddedModel, dict[str, float]]:
    """A model after one update on its own samples, with its last gradients, and the metrics.

    `before` may change the model between sampling and the update.
    """
    model = tiny_model()
    rollout = sampled(model, config)
    before(model)
    metrics = run_update(updater(model, config, reference=reference, lr=lr), rollout, advantages)
    return model, metrics


def moved(model: EmbeddedModel, scale: float = 0.02) -> EmbeddedModel:
    """The model with all trained parameters a little elsewhere."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=scale)
    return model


def gradients(model: EmbeddedModel) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def parameters(model: EmbeddedModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Differences are measured against the largest value of all, as a step would feel them."""
    assert ours.keys() == theirs.keys() and ours
    largest = max(t.abs().max() for t in theirs.values())
    assert largest > 0
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= tolerance * largest, name


def scored(model: EmbeddedModel, rollout: Rollout, config: Config, *want: str) -> list[Tensor]:
    """(B, T) statistics of the rollout's tokens, with gradient."""
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    scale, temperature = config.rollout.cfg_scale, config.rollout.temperature
    found = model(condition, rollout.tokens, want=want, cfg_scale=scale, temperature=temperature)
    return [found[name] for name in want]
