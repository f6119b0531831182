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

from t2i_credit.run_folder.reader import RunReader


def test_the_worker_of_a_killed_comparison_stops_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "t2i_credit.cli", "compare", *recipes(tmp_path)]
    command += ["--seeds", "2", "--out", str(out), "train.steps=100000"]
    with (tmp_path / "said").open("wb") as said:
        comparing = subprocess.Popen(
            command, stdout=said, stderr=said, env={**os.environ, "PYTHONPATH": str(SUPPORT)}
        )
    try:
        run = out / "grpo-seed0"
        until = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file():
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            assert comparing.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        (worker,) = psutil.Process(comparing.pid).children()
    finally:
        comparing.kill()
        comparing.wait()
    _, left = psutil.wait_procs([worker], timeout=60)
    assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]
    reader = RunReader(run)
    assert reader.status().state == "stopped" and reader.checkpoints()
