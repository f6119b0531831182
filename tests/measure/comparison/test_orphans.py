"""A comparison that is killed leaves no worker training, and goes on when it is run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from comparisons import recipes
from repository import SUPPORT
from training_runs import assert_same_run

from t2i_credit.run_folder.reader import RunReader

STEPS = 8
COMMAND = [sys.executable, "-m", "t2i_credit.cli", "compare"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SUPPORT)}


def kill_at_its_first_step(arguments: list[str], out: Path, log: Path) -> None:
    """Kills a comparison as soon as a worker has written a step; returns when that worker has ended by itself."""
    with log.open("wb") as said:
        comparing = subprocess.Popen(
            [*COMMAND, *arguments, "--out", str(out)], stdout=said, stderr=said, env=ENVIRONMENT
        )
    try:
        until = time.monotonic() + 120
        while not list(out.glob("*/metrics.jsonl")):
            assert time.monotonic() < until, log.read_text()
            assert comparing.poll() is None, log.read_text()
            time.sleep(0.05)
        (worker,) = psutil.Process(comparing.pid).children()
    finally:
        comparing.kill()
        comparing.wait()
    _, left = psutil.wait_procs([worker], timeout=60)
    assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]


def test_the_worker_of_a_killed_comparison_stops_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [*recipes(tmp_path), "--seeds", "2", "train.steps=100000"]
    kill_at_its_first_step(arguments, out, tmp_path / "said")
    reader = RunReader(out / "grpo-seed0")
    assert reader.status().state == "stopped" and reader.checkpoints()


def test_a_killed_comparison_is_run_again_to_its_end(tmp_path: Path) -> None:
    """Its runs are those of one that nobody disturbed."""
    plan = ["--seeds", "2", "--prompts", "2", "--images", "2", f"train.steps={STEPS}"]
    arguments = [*recipes(tmp_path), *plan]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_at_its_first_step(arguments, killed, tmp_path / "said")
    assert not (killed / "late-seed1").exists() and not (killed / "comparison.json").exists()
    for out in (killed, whole):
        again = subprocess.run(
            [*COMMAND, *arguments, "--out", str(out)],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )
        assert again.returncode == 0, again.stderr
        assert (out / "comparison.json").is_file()
    for run in ("grpo-seed0", "late-seed0", "grpo-seed1", "late-seed1"):
        ours, theirs = (RunReader(out / run) for out in (killed, whole))
        assert ours.status().state == "finished"
        assert_same_run(ours, theirs)
