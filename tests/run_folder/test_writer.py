"""Creating and resuming runs, and their metrics: what is written comes back, or is refused in one line."""

import os

import numpy as np
import pytest
import torch
from disk import everything, full_disk
from run_folders import dead_pid, new_run, set_status, write_toy_step

from t2i_credit.errors import RunError
from t2i_credit.run_folder.atomic import write_json
from t2i_credit.run_folder.reader import RunReader

# ---- creating and resuming


def test_a_new_run_tells_its_configuration_environment_and_status(tmp_path):
    new_run(tmp_path / "r", total=7)
    reader = RunReader(tmp_path / "r")
    assert reader.config() == {"model": {"name": "toy"}}
    assert reader.environment() == {"format": 1, "device": "cpu", "seed": 0}
    status = reader.status()
    assert (status.state, status.step, status.total, status.pid) == ("running", 0, 7, os.getpid())
    assert reader.metrics() == reader.steps() == reader.checkpoints() == reader.evaluations() == []


def test_an_existing_run_is_refused_and_resume_is_offered(tmp_path):
    new_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"r: this run exists: continue it with --resume"):
        new_run(tmp_path / "r")


def test_a_folder_with_other_things_in_it_is_refused_and_an_empty_one_is_taken(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="other: exists and is not a run folder"):
        new_run(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    assert RunReader(new_run(tmp_path / "empty").path).status().state == "running"


def test_a_run_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with full_disk(10), pytest.raises(RunError, match=r"/r/config\.yaml: cannot be written"):
        new_run(tmp_path / "r")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/r: cannot be written"):
        new_run(tmp_path / "file" / "r")
    assert everything(tmp_path) == ["file"]


def test_resuming_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="r: not a run folder"):
        new_run(tmp_path / "r", resume=True)


def test_resuming_cuts_everything_back_to_the_latest_checkpoint(tmp_path):
    run = new_run(tmp_path / "r")
    for step in range(1, 6):
        run.append_metrics(step, {"reward": step / 10})
        write_toy_step(run, step)
    (run.checkpoints / "000003").mkdir(parents=True)
    (run.checkpoints / ".000005.1-ab.tmp").mkdir()  # a killed process was writing it
    (tmp_path / "r" / ".status.json.1-ab.tmp").touch()
    with open(tmp_path / "r" / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "rew')
    again = new_run(tmp_path / "r", resume=True, total=20)
    reader = RunReader(tmp_path / "r")
    assert again.resume_step == 3
    assert [line["step"] for line in reader.metrics()] == [1, 2, 3]
    assert reader.steps() == [1, 2, 3]
    assert not [name for name in everything(tmp_path) if name.endswith(".tmp")]
    assert (reader.status().step, reader.status().total) == (3, 20)
    assert [entry["step"] for entry in reader.environment()["resumed"]] == [3]
    again.append_metrics(4, {"reward": 0.4})
    assert [line["step"] for line in reader.metrics()] == [1, 2, 3, 4]


def test_resuming_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {})
    write_toy_step(run, 1)
    assert new_run(tmp_path / "r", resume=True).resume_step == 0
    assert RunReader(tmp_path / "r").metrics() == RunReader(tmp_path / "r").steps() == []


def test_a_run_that_another_live_process_writes_cannot_be_resumed(tmp_path):
    new_run(tmp_path / "r")
    set_status(tmp_path / "r", pid=os.getppid())
    with pytest.raises(RunError, match=f"process {os.getppid()} is writing this run"):
        new_run(tmp_path / "r", resume=True)
    set_status(tmp_path / "r", pid=dead_pid())
    new_run(tmp_path / "r", resume=True)


@pytest.mark.parametrize("found", [2, 0, "1", None])
def test_a_format_of_another_version_is_refused_in_one_line(tmp_path, found):
    run = new_run(tmp_path / "r")
    write_json(run.path / "environment.json", {"format": found})
    with pytest.raises(RunError, match=f"r: run folder format {found!r}; this version reads 1"):
        RunReader(run.path)


# ---- metrics


def test_metrics_come_back_as_they_were_and_what_is_not_finite_is_null(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 0.1 + 0.2, "kl": float("nan"), "reward": torch.tensor(0.5)})
    run.append_metrics(2, {"loss": np.float32(0.25), "kl": float("inf")})
    assert RunReader(run.path).metrics() == [
        {"step": 1, "loss": 0.1 + 0.2, "kl": None, "reward": 0.5},
        {"step": 2, "loss": 0.25, "kl": None},
    ]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 1.0})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "loss": 0.5}')  # whole JSON, but the line has no end yet
    assert [line["step"] for line in RunReader(run.path).metrics()] == [1]


def test_a_damaged_line_is_named(tmp_path):
    run = new_run(tmp_path / "r")
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: damaged"):
        RunReader(run.path).metrics()


def test_metrics_that_do_not_fit_on_the_disk_leave_the_file_with_whole_lines(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 1.0})
    before = (run.path / "metrics.jsonl").read_bytes()
    with (
        full_disk(len(before) + 5),
        pytest.raises(RunError, match=r"metrics\.jsonl: cannot be wri"),
    ):
        run.append_metrics(2, {"loss": 1.0})
    assert (run.path / "metrics.jsonl").read_bytes() == before
