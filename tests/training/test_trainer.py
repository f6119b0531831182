"""Training end to end on toys: the reward rises or falls as it should, and what is warned of or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import recipe
from training_runs import assert_same_run, silent, timeless, trained

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import TrainingError
from t2i_credit.run_folder.checkpoint import load_checkpoint
from t2i_credit.run_folder.reader import RunReader

# Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["uniform", "guidance_contrast"])
def test_the_reward_rises(tmp_path: Path, credit: str) -> None:
    run = trained(
        tmp_path,
        credit={"name": credit},
        prompts={"per_step": 4},
        rollout={"group_size": 8},
        train={"steps": 25, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    metrics = run.metrics()
    # Five steps are 160 images of the same four prompts. By chance alone their means differ by s sqrt(2 / 160) = 0.11 s,
    # s = spread within a group, so one s is nine times that.
    first, last = (
        np.mean([line["reward"] for line in part]) for part in (metrics[:5], metrics[-5:])
    )
    assert last - first > metrics[0]["reward_spread"] > 0
    assert metrics[-1]["log_ratio_max"] < 1e-4  # sampling follows training
    assert metrics[-1]["samples"] == 25 * 32


def test_the_opposite_reward_falls(tmp_path: Path) -> None:
    run = trained(
        tmp_path,
        reward={"toys:bright": {"sign": -1.0, "weight": 2.0}},
        prompts={"per_step": 4},
        rollout={"group_size": 8},
        train={"steps": 15, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    brightness = [-line["reward/toys:bright"] for line in run.metrics()]
    spread = run.metrics()[0]["reward_spread"] / 2  # of the total, which has weight 2
    assert np.mean(brightness[:5]) - np.mean(brightness[-5:]) > spread
    assert run.metrics()[0]["reward"] == pytest.approx(-2 * brightness[0])


def test_the_same_configuration_gives_the_same_run_and_another_seed_another(
    tmp_path: Path,
) -> None:
    runs = [
        trained(tmp_path, train={"name": name, "steps": 3, "seed": seed})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert_same_run(runs[0], runs[1])
    assert timeless(runs[0])[0]["reward"] != timeless(runs[2])[0]["reward"]


# Warnings and refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "level"), [(0.0, "zero"), (0.25, "equal within every group")])
def test_rewards_without_spread_are_warned_of_every_ten_steps(
    tmp_path: Path, value: float, level: str
) -> None:
    warnings: list[str] = []
    config = recipe(
        tmp_path,
        reward={"toys:constant": {"value": value}},
        train={"steps": 21, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    run = RunReader(api.train(config, warn=warnings.append))
    assert [line.split(":")[0] for line in warnings] == ["step 10", "step 20"]
    assert all(level in line and "nothing is learned" in line for line in warnings)
    assert all(line["zero_spread"] == 1 and line["grad_norm"] == 0 for line in run.metrics())


def test_a_reward_that_is_not_finite_stops_with_the_step_and_before_any_update(
    tmp_path: Path,
) -> None:
    # of step 1 the rewards are asked for twice (the batch, and the kept samples); the fourth call is step 3's
    config = recipe(
        tmp_path,
        reward={"toys:broken": {"after": 3}},
        train={"checkpoint_every": 1},
        log={"samples_every": 100},
    )
    parts = api.prepare(parse_config(config))
    with pytest.raises(TrainingError) as caught:
        api.run_training(parts, resume=False, report=lambda step, metrics: None, warn=silent)
    expected = "step 3: reward toys:broken: returned a value that is not finite; no update was made"
    assert str(caught.value) == expected
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [1, 2] and len(run.metrics()) == 2
    assert (run.status().state, run.status().message) == ("failed", expected)
    saved = load_checkpoint(run.path / "checkpoints", 2).model_state
    assert saved is not None
    now = dict(parts.model.named_parameters())
    assert all(torch.equal(tensor, now[name]) for name, tensor in saved.items())
