"""Two processes do what one does: shares and how they come together, a run by torchrun and one by accelerate on two gloo
processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from repository import SUPPORT
from safetensors.torch import load_file
from toys import recipe, tiny_model

import t2i_credit
from t2i_credit.cli.commands import main
from t2i_credit.config.sections import TuneConfig
from t2i_credit.errors import ConfigError
from t2i_credit.run_folder.alternatives import read_alternatives
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.processes import (
    gather_rows,
    reduce_metrics,
    require_enough_prompts,
    shares,
)
from t2i_credit.training.tune import choose_trained


def test_shares_cover_every_prompt_once_and_are_as_even_as_can_be() -> None:
    for prompts in range(1, 9):
        for processes in range(1, prompts + 1):
            parts = shares(prompts, processes)
            assert [i for part in parts for i in range(prompts)[part]] == list(range(prompts))
            sizes = [part.stop - part.start for part in parts]
            assert max(sizes) - min(sizes) <= 1
    assert shares(2, 3) == [slice(0, 2)] * 3  # too few to share: everyone does all


def test_rows_of_uneven_shares_come_together_in_order() -> None:
    # 3 prompts of 2 samples on 2 processes: 1 prompt for the first, 2 for the second
    rows = torch.arange(12).reshape(6, 2)
    padded = torch.cat([rows[:2], torch.zeros(2, 2, dtype=torch.long), rows[2:]])
    for index, mine in ((0, rows[:2]), (1, rows[2:])):
        accelerator = SimpleNamespace(
            num_processes=2, process_index=index, gather=lambda tensor: padded
        )
        assert torch.equal(gather_rows(mine, 3, accelerator), rows)


def test_metrics_are_summed_over_processes_and_the_largest_is_kept() -> None:
    accelerator = SimpleNamespace(
        num_processes=2, device="cpu", gather=lambda t: torch.cat([t, t + 1])
    )
    found = reduce_metrics({"loss": 0.25, "ratio_max": 1.5}, {"ratio_max"}, 2, accelerator)
    assert found == {"loss": 1.5, "ratio_max": 2.5}


def test_more_processes_than_prompts_are_refused() -> None:
    require_enough_prompts(2, 2)
    with pytest.raises(ConfigError, match=r"prompts\.per_step: 2 is not allowed with 3 processes"):
        require_enough_prompts(2, 3)


# Three prompts a step, so that shares are uneven; with eps 1 AdamW does not magnify rounding in small gradients.
RUNS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora_rank": 2}}
# what starts the two of each run; with --cpu accelerate would start one process alone
LAUNCHERS = {
    "full": "torch.distributed.run --standalone --nproc_per_node 2",
    "lora": "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no",
}
SECTIONS: dict[str, Any] = {
    "prompts": {"per_step": 3},
    "loss": {"kl_coef": 0.1},
    "optim": {"lr": 1.0, "eps": 1.0},
    "log": {"alternatives": 2},
    # every process redraws and judges its own share
    "reward": {"toys:bright": {"map": "redraw", "map_block": 1, "map_draws": 2}},
    "credit": {"name": "reward_map", "strength": 0.5},
}


def two_processes(
    launcher: str, *arguments: str, stop_after: int = 0, kill: str | None = None
) -> Any:
    """What two processes of t2i-credit leave, on gloo; when as many steps are written the launcher gets a SIGTERM, or the
    process of that rank is killed."""
    command = [sys.executable, "-m", *launcher.split(), "-m", "t2i_credit.cli", *arguments]
    environment = os.environ | {
        "PYTHONPATH": str(SUPPORT),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    if stop_after:
        metrics = Path(arguments[1]).parent / "runs" / "run" / "metrics.jsonl"
        while process.poll() is None and (
            not metrics.exists() or metrics.read_text().count("\n") < stop_after
        ):
            time.sleep(0.05)
        if kill is None:
            process.terminate()
        else:
            ranks = psutil.Process(process.pid).children(recursive=True)
            next(one for one in ranks if one.environ().get("RANK") == kill).kill()
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="module", params=list(RUNS))
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process (`one`), and the same of two that torchrun or accelerate starts (`two`)."""
    folder = tmp_path_factory.mktemp(request.param)
    sections = SECTIONS | {"tune": RUNS[request.param]}
    for name in ("one", "two"):
        config = recipe(folder, **sections, train={"steps": 3, "micro_batch_size": 4, "name": name})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    t2i_credit.train(folder / "one.yaml")
    done = two_processes(LAUNCHERS[request.param], "train", str(folder / "two.yaml"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("run folder:") == 1  # one of them speaks
    return folder / "runs"


def test_a_run_of_two_processes_is_that_of_one(runs: Path, request: pytest.FixtureRequest) -> None:
    alone, both = runs / "one", runs / "two"
    assert [RunReader(run).environment()["processes"] for run in (alone, both)] == [1, 2]
    rows = zip(RunReader(alone).metrics(), RunReader(both).metrics(), strict=True)
    for one, two in rows:
        assert one.keys() == two.keys()
        for key, value in one.items():
            if not key.startswith("time/") and key not in ("log_ratio_mean", "log_ratio_max"):
                assert two[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    first, second = (RunReader(run).step(1).arrays["tokens"] for run in (alone, both))
    assert (first == second).all()
    first, second = (RunReader(run).step(1).arrays["reward_map"] for run in (alone, both))
    assert first.any() and np.allclose(first, second, atol=1e-5)
    for place in range(8):  # a group, and that of a probe
        one, two = (read_alternatives(RunReader(run).step(1), place) for run in (alone, both))
        assert one is not None and two is not None and (one.codes == two.codes).all()
    ours, theirs = (load_file(r / "checkpoints/000003/model.safetensors") for r in (alone, both))
    start = tiny_model()
    choose_trained(start, TuneConfig(**RUNS[request.node.callspec.params["runs"]]), seed=0)
    assert (
        ours.keys() == theirs.keys() == {n for n, p in start.named_parameters() if p.requires_grad}
    )
    moved = 0.0
    for key, tensor in ours.items():
        torch.testing.assert_close(theirs[key], tensor, atol=1e-5, rtol=0, msg=key)
        moved = max(moved, (tensor - start.state_dict()[key]).abs().max().item())
    assert moved > 1e-3  # it went somewhere


def test_a_run_folder_has_one_writer(runs: Path) -> None:
    reader = RunReader(runs / "two")
    assert [row["step"] for row in reader.metrics()] == [1, 2, 3]
    assert reader.status().state == "finished" and reader.steps() == [1, 3]


def test_a_run_of_two_processes_goes_on_in_one(runs: Path) -> None:
    config = yaml.safe_load((runs.parent / "two.yaml").read_text())
    config["train"]["steps"] = 4
    run = t2i_credit.train(config, resume=True)
    assert [row["step"] for row in RunReader(run).metrics()] == [1, 2, 3, 4]


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_that_are_stopped_agree_on_the_step(tmp_path: Path, sharding: str) -> None:
    train = {"steps": 10_000, "checkpoint_every": 10_000, "sharding": sharding}
    config = recipe(tmp_path, **SECTIONS, train=train)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = two_processes(LAUNCHERS["full"], "train", str(tmp_path / "run.yaml"), stop_after=2)
    assert done.returncode != 0
    run = RunReader(tmp_path / "runs" / "run")
    (step,) = run.checkpoints()
    assert run.status().state == "stopped" and len(run.metrics()) == step
    line = f"stopped by SIGTERM; --resume goes on after step {step}, the newest checkpoint"
    assert done.stderr.splitlines().count(line) == 1
    config["train"] |= {"steps": step + 1, "sharding": "none"}
    t2i_credit.train(config, resume=True)
    assert [row["step"] for row in run.metrics()] == list(range(1, step + 2))


def test_a_process_whose_other_is_killed_says_so_in_words(tmp_path: Path) -> None:
    train = {"steps": 10_000, "checkpoint_every": 1}
    config = recipe(tmp_path, **SECTIONS, train=train)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    command = ("train", str(tmp_path / "run.yaml"))
    done = two_processes(LAUNCHERS["full"], *command, stop_after=2, kill="1")
    assert done.returncode != 0
    run = RunReader(tmp_path / "runs" / "run")
    status = run.status()
    # the launcher ends who is left: whichever comes first
    assert status.state in ("failed", "stopped"), status
    if status.state == "failed":
        assert status.message.startswith("another process of this run has ended")
        assert "--resume" in status.message
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all("another process of this run has ended" in line for line in told)
    assert run.checkpoints()


def test_of_two_processes_one_prints_the_plan(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe(tmp_path)))
    done = two_processes(LAUNCHERS["full"], "train", str(tmp_path / "run.yaml"), "--dry-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("parameters trained") == 1 and not (tmp_path / "runs").exists()


def test_of_two_processes_one_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe(tmp_path)))
    done = two_processes(LAUNCHERS["full"], "train", str(tmp_path / "run.yaml"), "train.steps=none")
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(said) == 1 and "train.steps" in said[0]


def test_a_process_whose_first_one_lives_on_says_what_is_wrong_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setitem(main.__globals__, "GRACE", 0.0)
    monkeypatch.setattr("sys.argv", ["t2i-credit", "train", "no-such-recipe"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "no-such-recipe" in capsys.readouterr().err
