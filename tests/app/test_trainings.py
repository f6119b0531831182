"""The training that is started from the page: a real one in a process of its own. It is watched, stopped with a checkpoint,
resumed, and refused where one goes on already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from t2i_credit.app.recipes import planned, resumed
from t2i_credit.app.runs import RunShelf
from t2i_credit.app.trainings import Trainings
from t2i_credit.errors import RunError
from t2i_credit.run_folder.layout import numbered_folders

PATIENCE = 300  # seconds: a machine that trains beside it is slow
TWO = "a photo of two rings\na photo of a red circle"
SMALL = {"per_step": "2", "group_size": "2"}


def until(true, what):
    """Waits until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def steps_made(path):
    try:
        return len((path / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def plan_of(root, name, **keys):
    return planned(root, "shapes/gcpo", name, keys.pop("prompts", ""), {**SMALL, **keys})


def test_a_training_is_started_stopped_with_a_checkpoint_and_resumed(tmp_path):
    mine = Trainings(tmp_path / "runs")
    path = mine.root / "try"
    mine.start(plan_of(mine.root, "try", steps="2000", prompts=TWO))
    try:
        assert mine.running and mine.run == "try" and not mine.stopping
        with pytest.raises(RunError, match="one is trained at a time") as refused:
            mine.start(plan_of(mine.root, "second"))
        assert "\n" not in str(refused.value) and not (mine.root / "second.console.txt").exists()
        with pytest.raises(RunError, match="not started from this page"):
            mine.stop("second")
        until(lambda: steps_made(path) >= 2, "no step")
        mine.stop("try")
        with (
            pytest.raises(RunError, match="is ending") if mine.stopping else pytest.raises(RunError)
        ):
            mine.stop("try")
        until(lambda: not mine.running, "not stopped")
    finally:
        mine.close(lambda line: None)
    assert mine.failed is None and "stopped by SIGINT" in mine.last_lines()[-1]
    (newest,) = numbered_folders(path / "checkpoints")
    assert newest == steps_made(path) < 2000
    first, _ = (mine.root / "try.prompts.jsonl").read_text().splitlines()
    assert json.loads(first)["text"] == TWO.splitlines()[0]
    assert json.loads(first)["spec"]["tag"] == "counting"
    shelf = RunShelf(mine.root)
    assert [(s.path.name, s.state) for s in shelf.statuses()] == [("try", "stopped")]

    again = Trainings(mine.root)  # the app was started anew
    with pytest.raises(RunError, match="not started from this page"):
        again.stop("try")
    again.start(resumed(again.root, shelf.open("try")))
    try:
        until(lambda: steps_made(path) > newest, "does not go on")
    finally:
        told = []
        again.close(told.append)
    assert not again.running and "--resume goes on after step" in told[-1]
    assert max(numbered_folders(path / "checkpoints")) > newest


def test_a_training_that_fails_says_its_last_lines(tmp_path):
    mine = Trainings(tmp_path / "runs")
    plan = plan_of(mine.root, "try")
    (mine.root / "try").mkdir(parents=True)
    (mine.root / "try" / "file").write_text("")  # somebody was faster
    mine.start(plan)
    until(lambda: not mine.running, "does not end")
    assert mine.failed == 2
    assert "exists and is not a run folder" in mine.last_lines()[-1]
    assert os.listdir(mine.root / "try") == ["file"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_stands_in_the_place_of_the_output_is_not_written_to(tmp_path, kind):
    mine = Trainings(tmp_path / "runs")
    plan = plan_of(mine.root, "try")
    mine.root.mkdir()
    place, secret = mine.root / "try.console.txt", tmp_path / "secret"
    secret.write_text("kept")
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(RunError, match=r"try\.console\.txt"):
        mine.start(plan)
    assert not mine.running and secret.read_text() == "kept"
    assert mine.last_lines() == []


def test_prompts_of_somebody_else_are_not_written_over(tmp_path):
    mine = Trainings(tmp_path)
    plan = plan_of(mine.root, "try", prompts=TWO)
    plan.source.write_text("mine")
    with pytest.raises(RunError, match="choose another name"):
        mine.start(plan)
    assert plan.source.read_text() == "mine" and not mine.running


def test_output_is_shown_as_text(tmp_path):
    mine = Trainings(tmp_path)
    mine.run = "try"
    said = b"\x1b[31mred\x1b[0m\n" + b"x" * 9000 + b"\n\n" + b"line\n" * 30 + "\u202eend\n".encode()
    (tmp_path / "try.console.txt").write_bytes(said)
    lines = mine.last_lines()
    assert len(lines) == 12 and lines[-1] == "\\u202eend"
    assert all(line.isprintable() for line in lines)


APP = """
import sys
from t2i_credit.app import server
from t2i_credit.app.recipes import planned
def start(*args, trainings=None, **more):
    page = real(*args, trainings=trainings, **more)
    keys = {"per_step": "2", "group_size": "2", "steps": "2000"}
    trainings.start(planned(trainings.root, "shapes/gcpo", "try", "", keys))
    return page
real, server.start = server.start, start
server.serve(sys.argv[1], port=0, allow_training=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_app_stops_its_training_with_a_checkpoint_when_it_ends(tmp_path, number):
    runs = tmp_path / "runs"
    command = [sys.executable, "-c", APP, str(runs)]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: steps_made(runs / "try") >= 1 or app.poll() is not None, "no step")
        (training,) = [
            one for one in psutil.Process(app.pid).children() if "train" in one.cmdline()
        ]
        app.send_signal(number)
        said, _ = app.communicate(timeout=PATIENCE)
    finally:
        app.kill()
    assert app.returncode == 0 and not training.is_running()
    assert "try is still training: it is stopped with a checkpoint" in said
    assert "--resume goes on after step" in said
    assert numbered_folders(runs / "try" / "checkpoints")
