"""Runs that are killed at any moment, or whose disk is full, leave files that are whole and can be resumed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toys import command_line, recipe
from training_runs import EVERYTHING, assert_same_run, silent, trained

from t2i_credit import api
from t2i_credit.errors import RunError
from t2i_credit.run_folder.checkpoint import load_checkpoint
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml

# Killing ----------------------------------------------------------------------------------------------------------

KILLS = int(os.environ.get("T2I_CREDIT_KILLS", "2"))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that begin with the libraries loaded and nothing else of this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["t2i_credit.training.trainer", "t2i_credit.models.embedded_model"]
    )
    return context


class Command:
    """A training run on the command line, in a process of its own."""

    def __init__(self, context: Any, folder: Path, name: str) -> None:
        self.context, self.run, self.log = context, folder / "runs" / name, folder / f"{name}.log"
        self.arguments = ["train", str(folder / "recipe.yaml"), f"train.name={name}"]

    def start(self, *more: str) -> Any:
        """The process, once it writes its run folder (or has ended)."""
        process = self.context.Process(
            target=command_line, args=([*self.arguments, *more], self.log), daemon=True
        )
        process.start()
        while process.exitcode is None and not self._is_written_by(process.pid):
            time.sleep(0.002)
        return process

    def _is_written_by(self, pid: int) -> bool:
        try:
            return bool(RunReader(self.run).status().pid == pid)
        except RunError:
            return False

    def finish(self, process: Any) -> None:
        process.join(300)
        assert process.exitcode == 0, self.log.read_text()


def assert_whole(run: RunReader) -> None:
    """Whatever a killed run left can be read."""
    assert run.status().state == "killed"
    assert [line["step"] for line in run.metrics()] == list(range(1, len(run.metrics()) + 1))
    for step in run.checkpoints():
        load_checkpoint(run.path / "checkpoints", step)
    for step in run.steps():
        record = run.step(step)
        assert all(record.image(i).size == (16, 16) for i in range(len(record.samples)))


def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(
    tmp_path: Path, processes: Any
) -> None:
    sections = {**EVERYTHING, "train": {"steps": 8, "checkpoint_every": 2}}
    config = recipe(tmp_path, **sections, log={"samples_every": 2, "groups": 1, "probes": 1})
    (tmp_path / "recipe.yaml").write_text(write_yaml(config))
    undisturbed = Command(processes, tmp_path, "undisturbed")
    process = undisturbed.start()
    began = time.monotonic()
    undisturbed.finish(process)
    duration = time.monotonic() - began
    expected = RunReader(undisturbed.run)
    assert len(expected.metrics()) == 8

    kills, runs = 0, 0
    while kills < KILLS:
        command = Command(processes, tmp_path, f"killed{runs}")
        process = command.start()
        while kills < KILLS:
            delay = random.uniform(0, duration)
            process.join(delay)
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            if RunReader(command.run).status().state == "finished":
                assert process.exitcode in (0, -signal.SIGKILL), command.log.read_text()
                process = None  # it came too late: all was written, the process was still ending
                break
            kills += 1
            print(f"kill {kills} after {delay:.3f} s of {duration:.3f}")
            assert process.exitcode == -signal.SIGKILL
            assert_whole(RunReader(command.run))
            process = command.start("--resume")
        if process is not None:
            command.finish(process)
        assert_same_run(RunReader(command.run), expected)
        left = [p.name for p in command.run.rglob(".*")]
        assert left == []  # nothing unfinished is left behind
        runs += 1


# A disk that is full ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full_after", "samples_every", "named"),
    [(4, 3, "checkpoints"), (3, 1, "steps"), (3, 100, "metrics.jsonl")],
    ids=["checkpoint", "samples", "metrics"],
)
def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoint_to_resume_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_after: int,
    samples_every: int,
    named: str,
) -> None:
    log = {"samples_every": samples_every, "groups": 1, "probes": 1}
    common = {"steps": 5, "checkpoint_every": 2}
    whole = trained(tmp_path, log=log, train={**common, "name": "whole"})
    config = recipe(tmp_path, log=log, train=common)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(step: int, metrics: Mapping[str, float]) -> None:
        if step == full_after:
            monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(RunError, match="cannot be written: No space left on device") as caught:
        api.train(config, report=fill, warn=silent)
    assert "\n" not in str(caught.value) and named in str(caught.value)
    monkeypatch.undo()
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [2]
    assert [p.name for p in run.path.rglob(".*")] == []
    told: list[str] = []
    api.train(config, resume=True, warn=told.append)
    assert [line.partition(":")[0] for line in told] == [
        f"{run.path} goes on after its checkpoint of step 2"
    ]
    assert_same_run(run, whole)


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond 20 kB: enough for metrics and pictures, too little for a checkpoint
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match="checkpoints/000003: cannot be written") as caught:
            api.train(config, warn=silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [] and run.steps() == [1, 3]
    assert [p.name for p in run.path.rglob(".*")] == []
    assert run.status().state == "failed"
    assert "cannot be written" in run.status().message
