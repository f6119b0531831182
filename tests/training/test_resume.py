"""A resumed run is the undisturbed one, bit for bit, and says what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import recipe, tiny_model
from training_runs import (
    EVERY_REWARD,
    EVERYTHING,
    assert_same_run,
    silent,
    stop_at,
    timeless,
    trained,
)

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import RunError, UserError
from t2i_credit.run_folder.checkpoint import load_checkpoint, save_checkpoint
from t2i_credit.run_folder.reader import RunReader


@pytest.mark.parametrize(
    "sections",
    [
        EVERYTHING,
        {"credit": {"name": "distribution_guided"}, "loss": {"policy": "conditional"}},
        EVERY_REWARD,
        {
            "reward": {"toys:bright": {"map": "redraw", "map_block": 1}},
            "credit": {"name": "reward_map"},
        },
    ],
    ids=["contrast", "distribution", "rewards", "map"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    whole = trained(tmp_path, **sections, train={"name": "whole"})
    broken = recipe(tmp_path, **sections, train={"name": "broken"})
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(5), warn=silent)
    left = RunReader(tmp_path / "runs" / "broken")
    assert left.status().state == "stopped"
    assert len(left.metrics()) == 5 and left.checkpoints() == [3]
    told: list[str] = []
    api.train(broken, resume=True, warn=told.append)
    where = "goes on after its checkpoint of step 3"
    assert told == [f"{left.path} {where}: steps 4 to 5 are run again"]
    assert_same_run(left, whole)
    assert left.status().state == "finished"
    assert left.environment()["resumed"][0]["step"] == 3


def test_a_run_that_stopped_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    whole = trained(tmp_path, train={"name": "whole"})
    broken = recipe(tmp_path, train={"name": "broken"})
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(2), warn=silent)
    told: list[str] = []
    left = RunReader(api.train(broken, resume=True, warn=told.append))
    assert told == [f"{left.path} has no checkpoint: steps 1 to 2 are run again"]
    assert_same_run(left, whole)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run = trained(tmp_path)
    before = timeless(run)
    steps: list[int] = []
    api.train(
        recipe(tmp_path), resume=True, warn=silent, report=lambda step, metrics: steps.append(step)
    )
    assert steps == [] and timeless(run) == before
    assert run.status().state == "finished"


def test_old_checkpoints_that_a_killed_process_left_go_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"checkpoint_every": 2, "keep_checkpoints": 2}
    with monkeypatch.context() as patch:
        patch.setattr(
            "t2i_credit.training.trainer.save_checkpoint",
            lambda *args, **more: save_checkpoint(*args, **{**more, "keep": None}),
        )
        run = trained(tmp_path, train=keep)
    assert run.checkpoints() == [2, 4, 6]
    api.train(recipe(tmp_path, train=keep), resume=True, warn=silent)
    assert run.checkpoints() == [4, 6]


def test_a_resumed_run_may_go_on_for_longer(tmp_path: Path) -> None:
    longer = trained(tmp_path, train={"name": "longer", "steps": 5, "checkpoint_every": 3})
    trained(tmp_path, train={"steps": 3})
    warnings: list[str] = []
    config = recipe(tmp_path, train={"steps": 5})
    run = RunReader(api.train(config, resume=True, warn=warnings.append))
    assert warnings == ["train.steps was 3 so far, and is 5 from here on"]
    assert [line["reward"] for line in run.metrics()] == [
        line["reward"] for line in longer.metrics()
    ]


def test_resuming_with_other_values_says_so_and_uses_them(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    warnings: list[str] = []
    changed = {"lr": 5e-3, "betas": [0.5, 0.6]}
    config = recipe(tmp_path, optim=changed, train={"steps": 4})
    run = RunReader(api.train(config, resume=True, warn=warnings.append))
    assert "optim.lr was 0.01 so far, and is 0.005 from here on" in warnings
    assert any(line.startswith("optim.betas was [0.9, 0.99]") for line in warnings)
    assert len(warnings) == 3  # and train.steps
    assert run.metrics()[-1]["lr"] == 5e-3
    optimizer = load_checkpoint(run.path / "checkpoints").optimizer
    assert optimizer is not None
    assert optimizer["param_groups"][0]["betas"] == (0.5, 0.6)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    for head, said in (
        (torch.nn.Linear(32, 48), r"image_head\.\w+ does not fit the model"),
        (
            torch.nn.Sequential(torch.nn.Linear(32, 32)),
            "image_head.0.bias is not in this checkpoint",
        ),
    ):
        parts = api.prepare(parse_config(recipe(tmp_path)))
        parts.model.image_head = head
        with pytest.raises(RunError, match=said) as caught:
            api.run_training(parts, resume=True, report=lambda s, m: None, warn=lambda line: None)
        assert "\n" not in str(caught.value)


def test_a_run_that_has_all_its_steps_takes_no_other_value(tmp_path: Path) -> None:
    run = trained(tmp_path, train={"steps": 3})
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    told: list[str] = []
    config = recipe(tmp_path, train={"steps": 3, "seed": 5}, rollout={"group_size": 8})
    api.train(config, resume=True, warn=told.append)
    (line,) = told
    assert line.startswith(f"{run.path} has all its steps, so nothing is trained, and no other")
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_damaged_lines_of_metrics_are_told_and_kept(tmp_path: Path) -> None:
    run = trained(tmp_path, train={"steps": 3, "checkpoint_every": 3})
    file = run.path / "metrics.jsonl"
    first, second, third = file.read_bytes().splitlines(keepends=True)
    broken = second[:40] + b"\n"
    file.write_bytes(
        first + broken + third + b'{"step": 4, "rew'
    )  # the last one was never finished
    told: list[str] = []
    config = recipe(tmp_path, train={"steps": 4, "checkpoint_every": 3})
    api.train(config, resume=True, warn=told.append)
    assert f"{file}: line 2 is damaged, and is kept in metrics.damaged.jsonl" in told
    assert (run.path / "metrics.damaged.jsonl").read_bytes() == broken
    assert [row["step"] for row in run.metrics()] == [1, 3, 4]


def test_missing_metrics_are_told(tmp_path: Path) -> None:
    run = trained(tmp_path, train={"steps": 3, "checkpoint_every": 3})
    (run.path / "metrics.jsonl").unlink()
    told: list[str] = []
    config = recipe(tmp_path, train={"steps": 4, "checkpoint_every": 3})
    api.train(config, resume=True, warn=told.append)
    assert f"{run.path}/metrics.jsonl: is missing; its curves begin after step 3" in told
    assert [row["step"] for row in run.metrics()] == [4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_one_line_in_a_run_and_in_a_model_folder(
    tmp_path: Path, value: float
) -> None:
    run = trained(tmp_path, train={"steps": 3, "checkpoint_every": 3})
    saved = load_checkpoint(run.path / "checkpoints")
    assert saved.model_state is not None
    name, tensor = next(iter(saved.model_state.items()))
    tensor.view(-1)[-1] = value
    state = {"optimizer": saved.optimizer, "extra": saved.extra, "model_state": saved.model_state}
    save_checkpoint(run.path / "checkpoints", 3, **state)  # type: ignore[arg-type]
    for refused in (
        lambda: api.load_model(run.path),
        lambda: api.train(recipe(tmp_path, train={"steps": 4}), resume=True, warn=print),
    ):
        with pytest.raises(
            UserError, match=rf"000003: the tensor {name} holds values that are not"
        ):
            refused()
    model = tiny_model()
    model.image_head.weight.data[0, 0] = value
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match=r"broken: the tensor image_head.weight holds values"):
        api.load_model(tmp_path / "broken")
