"""The training tab without a browser: signs of change, groups, and how long a run still takes."""

from __future__ import annotations

import json

import pytest
from app_toys import say_state, write_toy_step

from t2i_credit.app import training, words
from t2i_credit.app.runs import Recorded, liveliest
from t2i_credit.cli import console
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.status import RunStatus
from t2i_credit.run_folder.writer import RunWriter


def test_an_unchanged_run_has_the_same_signs(shelf):
    assert training.signs(shelf, "one") == training.signs(shelf, "one")
    strip, curves = training.numbers(shelf, "one")
    assert "finished" in strip and curves["figures"] and training.newest(shelf, "one")["groups"]


def test_a_new_step_changes_the_sign_of_the_curves_and_a_new_record_that_of_the_pictures(fresh):
    begun = training.signs(fresh, "one")
    run = RunWriter(fresh.root / "one")
    before = len(training.numbers(fresh, "one")[1]["figures"][0]["data"][-1]["x"])
    with (fresh.root / "one" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "reward": 1.0}\n')
    longer = training.signs(fresh, "one")
    assert longer[0] != begun[0] and longer[1] == begun[1]
    assert len(training.numbers(fresh, "one")[1]["figures"][0]["data"][-1]["x"]) == before + 1
    write_toy_step(run, 10)
    recorded = training.signs(fresh, "one")
    assert recorded[0] == longer[0] and recorded[1] != longer[1]
    assert "step 10" in training.newest(fresh, "one")["groups"][0]["says"]


def test_another_state_of_a_run_is_another_sign(fresh):
    begun = training.signs(fresh, "one")
    say_state(fresh.root / "one", "running", pid=2**22 - 3)  # no such process
    assert training.signs(fresh, "one")[0] != begun[0]


def test_a_group_that_is_all_alike_shows_its_credit_and_says_so(fresh):
    run = RunWriter(fresh.root / "one")
    write_toy_step(run, 11)
    lively = training.newest_group(RunReader(run.path), [11])
    assert lively["map"] == "token_advantages" and "alike" not in lively["groups"][0]["says"]
    write_toy_step(run, 12, alike=True)
    flat = training.newest_group(RunReader(run.path), [12])
    assert flat["map"] == "credit" and "nothing is pushed" in flat["groups"][0]["says"]


def test_the_liveliest_group_is_the_one_whose_rewards_vary_most():
    def group(number, rewards, probe=False):
        return Recorded(number, "", None, probe, tuple(range(4)), rewards)

    even, lone = group(0, (1.0, 1.0, 0.0, 0.0)), group(1, (1.0, 1.0, 1.0, 0.0))
    assert liveliest([lone, even]) is even
    assert liveliest([group(2, even.rewards, probe=True), even]) is even


def test_time_left_is_the_median_step_times_the_steps_that_are_left(tmp_path):
    status = RunStatus(tmp_path, "running", step=4, total=10)
    metrics = [{"time/step": seconds} for seconds in (2.0, 2.0, 50.0, 2.0)]
    assert words.time_left(status, metrics) == 12.0  # 6 steps of 2 s
    assert words.time_left(status, []) is None
    warm_up = [{"time/step": seconds} for seconds in (29.0, 5.0)]
    assert words.time_left(status, warm_up[:1]) == 174.0
    assert words.time_left(status, warm_up) == 30.0


def test_page_and_command_line_tell_the_same_mean_and_time_left_after_a_resume(tmp_path, capsys):
    rows = [{"step": n, "reward": n / 10, "time/step": float(n % 3 + 1)} for n in range(1, 8)]
    (tmp_path / "r").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows[:6])
    (tmp_path / "r" / "config.yaml").write_text("train: {}")
    (tmp_path / "r" / "metrics.jsonl").write_text(lines)  # steps 1 to 6, then it was stopped
    with console._bar() as bar:
        console.TrainingProgress(bar, "r", 20, tmp_path / "r").report(7, rows[6])
    told = capsys.readouterr().out
    assert "reward 0.400 (mean of 7 steps)" in told and "about 26 s left" in told  # 13 of 2 s
    strip = words.status_strip(RunStatus(tmp_path, "running", step=7, total=20), rows)
    assert "mean of the last 7 steps</span><b>0.400" in strip and "26 s" in strip
    assert "Throughput, last step" in strip


def test_what_a_run_took_counts_the_steps_before_a_resume(tmp_path):
    rows = [{"step": step, "time/step": 30.0} for step in (1, 2, 3, 4, 6)]  # 5 was left out
    resumed = RunStatus(tmp_path, "finished", step=6, total=6, started=100.0, heartbeat=130.0)
    assert "<b>3 min</b>" in words.status_strip(resumed, rows)
    assert "<b>30 s</b>" in words.status_strip(resumed, [])


def test_a_page_with_a_resume_button_says_so_in_place_of_the_flag(fresh):
    status = json.loads((fresh.root / "one" / "status.json").read_text())
    told = {**status, "state": "stopped", "message": "--resume goes on after step 5"}
    (fresh.root / "one" / "status.json").write_text(json.dumps(told))
    assert "the Resume button goes on" in training.numbers(fresh, "one", True)[0]
    assert "--resume goes on" in training.numbers(fresh, "one")[0]
    assert words.on_page("t2i-credit train --resume does") == "t2i-credit train --resume does"


@pytest.mark.parametrize(
    ("seconds", "text"), [(12, "12 s"), (240, "4 min"), (12000, "3 h 20 min"), (0, "0 s")]
)
def test_a_duration_reads_as_one_says_it(seconds, text):
    assert words.duration(seconds) == text


def test_a_run_that_was_killed_and_one_that_failed_say_so(fresh):
    say_state(fresh.root / "one", "running", pid=2**22 - 3)  # no such process
    assert "was killed" in training.numbers(fresh, "one")[0]
    status = json.loads((fresh.root / "one" / "status.json").read_text())
    failed = {**status, "state": "failed", "message": "step 3: <b>loss</b> is nan"}
    (fresh.root / "one" / "status.json").write_text(json.dumps(failed))
    strip = training.numbers(fresh, "one")[0]
    assert "failed" in strip and "&lt;b&gt;loss" in strip
