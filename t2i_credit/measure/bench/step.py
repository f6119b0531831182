"""Whole training steps: GCPO against GRPO, the rates of their parts, the passes that they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from ...api.parts import Parts
from ...config.plugins import CreditConfig
from ...config.schema import Config
from ...credit.table import CREDIT
from ...training.metrics import StepClock
from ...training.policy import PassCounter, passes_needed
from ...training.processes import Follower
from ...training.trainer import Trainer
from .timing import Row, alone, compared, interleaved, seconds, synchronize

GRPO, GCPO = "uniform", "guidance_contrast"
# The trainer keeps samples at step 1 and at the last one: steps between these write nothing.
FIRST_STEP, LAST_STEP = 2, 10**9


def step_rows(
    made: Parts, repeats: int, done: Callable[[], None]
) -> tuple[list[Row], dict[str, float]]:
    """Whole steps of the trainer, the rates of their parts, and the forward passes of one step."""
    config, model, reference = made.config, made.model, made.reference
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier one may be for a GPU
    accelerator = Accelerator(
        cpu=model.device.type == "cpu", mixed_precision=config.train.precision
    )
    trainers = {
        name: Trainer(
            _step_config(config, name),
            model=model,
            reference=reference,
            reward=made.reward,
            advantage=made.advantage,
            credit=CREDIT[name],
            prompts=made.prompts,
            run=Follower(Path(), resume=False),  # type: ignore[arg-type]
            accelerator=accelerator,
            warn=lambda line: None,
            clock=StepClock(lambda: synchronize(model.device)),
        )
        for name in (GCPO, GRPO)
    }
    parts: dict[str, list[float]] = {"rollout": [], "update": []}

    def step(name: str, repeat: int) -> float:
        trainer = trainers[name]
        spent = seconds(model.device, lambda: trainer.step(FIRST_STEP + repeat))
        if name == GCPO:
            for part, values in parts.items():
                values.append(trainer.clock.seconds[part])
        return spent

    counter = PassCounter(model)
    held = [reference] if isinstance(reference, nn.Module) else []  # else it is the model itself
    with counter.counting(model, *held):
        step(GCPO, 0)
    step(GRPO, 0)
    for values in parts.values():
        values.clear()
    ours, rival = interleaved(lambda i: step(GCPO, i), lambda i: step(GRPO, i), repeats, done)
    model.zero_grad(set_to_none=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = samples * model.grid[0] * model.grid[1]
    needed = passes_needed(trainers[GCPO].config, CREDIT[GCPO])
    passes = {"counted": counter.per_token(samples), "expected": float(needed.total)}
    rates = {part: [tokens / spent for spent in values] for part, values in parts.items()}
    what = f"training step on {samples} images: GCPO ({GCPO}) against GRPO ({GRPO})"
    done_to = {"rollout": "sampled and decoded", "update": "trained on"}
    rows = [
        compared(what, "s", ours, rival),
        *(
            alone(f"{part} of that GCPO step: image tokens {done_to[part]}", "tokens/s", rate)
            for part, rate in rates.items()
        ),
    ]
    return rows, passes


def _step_config(config: Config, credit: str) -> Config:
    """The configuration with another credit, a learning rate of 0, which costs the same and leaves the model as it
    is, so that both variants see the same images, and without kept samples. Uniform credit has nothing to refresh, and
    no KL weights."""
    even = credit == GRPO
    return config.model_copy(
        update={
            "credit": CreditConfig(name=credit, refresh=config.credit.refresh and not even),
            "loss": config.loss.model_copy(update={"kl_weight": "none"}) if even else config.loss,
            "optim": config.optim.model_copy(update={"lr": 0.0}),
            "train": config.train.model_copy(update={"steps": LAST_STEP}),
            "log": config.log.model_copy(update={"samples_every": LAST_STEP, "probes": 0}),
        }
    )
