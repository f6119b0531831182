"""How a run ended, whether it still runs, and in which order runs are listed."""

import os
import socket
import subprocess
import sys
import time

import pytest
from disk import full_disk
from run_folders import dead_pid, new_run, set_status

from t2i_credit.run_folder.atomic import write_json
from t2i_credit.run_folder.reader import RunReader, list_runs


def test_leaving_the_run_says_how_it_ended(tmp_path):
    with new_run(tmp_path / "finished"):
        pass
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "failed"):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "stopped"):
        raise KeyboardInterrupt
    states = {p.name: RunReader(p).status() for p in tmp_path.iterdir()}
    assert {name: status.state for name, status in states.items()} == {
        name: name for name in ("finished", "failed", "stopped")
    }
    assert states["failed"].message == "division by zero"


def test_an_error_of_training_is_not_hidden_by_a_full_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "r"), full_disk(10):
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "gone") as run:
        run.path.rename(tmp_path / "moved")
        _ = 1 / 0


def test_a_running_run_whose_process_is_gone_or_silent_was_killed(tmp_path):
    run = new_run(tmp_path / "r")
    reader = RunReader(run.path)
    assert reader.status().state == "running"
    set_status(run.path, pid=dead_pid())
    assert reader.status().state == "killed"
    set_status(run.path, pid=os.getpid(), heartbeat=time.time() - 100)
    assert reader.status(stale_after=200).state == "running"
    assert reader.status(stale_after=50).state == "killed"
    set_status(run.path, state="finished")
    assert reader.status(stale_after=50).state == "finished"


def test_a_process_number_of_another_machine_says_nothing(tmp_path):
    run = new_run(tmp_path / "r")
    set_status(run.path, pid=dead_pid(), host=socket.gethostname() + "-2")
    status = RunReader(run.path).status()
    assert (status.state, status.here) == ("running", False)


def test_a_dead_child_that_nobody_waited_for_counts_as_gone(tmp_path):
    run = new_run(tmp_path / "r")
    child = subprocess.Popen([sys.executable, "-c", ""])
    set_status(run.path, pid=child.pid)
    deadline = time.time() + 20
    while RunReader(run.path).status().state != "killed" and time.time() < deadline:
        time.sleep(0.02)
    assert RunReader(run.path).status().state == "killed"
    child.wait()


def test_heartbeats_move_the_step_and_are_rare_otherwise(tmp_path):
    run = new_run(tmp_path / "r")
    first = RunReader(run.path).status().heartbeat
    run.heartbeat()
    assert RunReader(run.path).status().heartbeat == first
    run.heartbeat(4)
    status = RunReader(run.path).status()
    assert status.step == 4
    assert status.heartbeat >= first


def test_runs_are_listed_running_first_then_newest_and_unreadable_ones_last(tmp_path):
    for age, name in enumerate(["new", "old", "older"]):
        new_run(tmp_path / name)
        set_status(tmp_path / name, started=1000.0 - age, state="finished")
    set_status(tmp_path / "older", state="running")
    new_run(tmp_path / "later")
    write_json(tmp_path / "later" / "environment.json", {"format": 99})
    (tmp_path / "no-run").mkdir()
    found = list_runs(tmp_path)
    assert [run.path.name for run in found] == ["older", "new", "old", "later"]
    assert [run.state for run in found] == ["running", "finished", "finished", "unreadable"]
    assert "format 99" in found[-1].message
    assert [run.path for run in list_runs(tmp_path / "new")] == [tmp_path / "new"]
    assert list_runs(tmp_path / "nowhere") == []
