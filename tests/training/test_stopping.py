"""SIGTERM and Ctrl-C leave a checkpoint of the last finished step, and say where the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from repository import SUPPORT
from toys import recipe
from training_runs import EVERY_REWARD, EVERYTHING, assert_same_run, silent, trained

from t2i_credit import api
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training import collect, stopping, trainer
from t2i_credit.training.stopping import Stop, Stopped
from t2i_credit.yaml_text import write_yaml


def stopped(config: dict[str, Any], *, resume: bool = False, **more: Any) -> Stopped:
    with pytest.raises(Stopped) as caught:
        api.train(config, warn=silent, resume=resume, **more)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was
    return caught.value


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends this process a signal amid a step: as its images are judged, or as its first update begins."""

    def arrange(number: int, *, judged: int = 0, updated: int = 0, slow: float = 0.0) -> None:
        def judge(step: int, *args: Any, **more: Any) -> Any:
            found = collect.judge_together(step, *args, **more)
            if step == judged:
                signal.raise_signal(number)
            return found

        def updating(self: Stop, *_: Any) -> None:
            first, self.busy = not self.busy, True
            if first and self.step + 1 == updated:
                signal.raise_signal(number)
                time.sleep(slow)

        monkeypatch.setattr(trainer, "judge_together", judge)
        monkeypatch.setattr(Stop, "updating", updating)

    return arrange


@pytest.mark.parametrize("sections", [EVERYTHING, EVERY_REWARD], ids=["everything", "rewards"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_without_an_update_is_given_up_and_the_one_before_is_kept(
    tmp_path: Path, signalled: Any, sections: dict[str, Any], number: int
) -> None:
    keep = {"keep_checkpoints": 1}
    whole = trained(tmp_path, **sections, train={"name": "whole", **keep})
    config = recipe(tmp_path, **sections, train=keep)
    signalled(number, judged=5)
    ended = stopped(config)
    name = signal.Signals(number).name
    goes_on = "--resume goes on after step 4, the newest checkpoint"
    assert (str(ended), ended.code) == (f"stopped by {name}; {goes_on}", 128 + number)
    left = RunReader(tmp_path / "runs" / "run")
    assert left.checkpoints() == [4] and len(left.metrics()) == 4
    assert (left.status().state, left.status().message) == ("stopped", str(ended))
    signalled(number)  # no more
    api.train(config, resume=True, warn=silent)
    assert_same_run(left, whole)


def test_a_step_amid_its_updates_is_finished_first(tmp_path: Path, signalled: Any) -> None:
    signalled(signal.SIGTERM, updated=2)
    ended = stopped(recipe(tmp_path, **EVERYTHING))
    assert "goes on after step 2" in str(ended)
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [2] and len(run.metrics()) == 2


def test_updates_that_take_too_long_are_given_up_with_a_word(
    tmp_path: Path, signalled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "GRACE", 0.1)
    signalled(signal.SIGTERM, updated=5, slow=5)
    began = time.monotonic()
    ended = stopped(recipe(tmp_path))
    assert time.monotonic() - began < 5
    assert str(ended) == (
        "stopped by SIGTERM; no checkpoint of step 4 after 0.1 s: step 5 was amid its updates; "
        "--resume goes on after step 3, the newest checkpoint"
    )
    assert RunReader(tmp_path / "runs" / "run").checkpoints() == [3]


def test_a_second_signal_ends_at_once_and_what_was_said_stays_true(
    tmp_path: Path, signalled: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def slow(self: Any, step: int) -> None:
        if step != 3:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it did not end")
        save(self, step)

    save = trainer.Trainer._save
    monkeypatch.setattr(trainer.Trainer, "_save", slow)
    signalled(signal.SIGINT, judged=6)
    ended = stopped(recipe(tmp_path))
    goes_on = "--resume goes on after step 3, the newest checkpoint"
    assert str(ended) == f"stopped by SIGINT; {goes_on}"
    told = f"SIGINT: writes a checkpoint of step 5; a second signal ends at once, then {goes_on}"
    assert capfd.readouterr().err.splitlines()[-1] == told


def test_before_the_first_step_there_is_nothing_to_go_on_from(
    tmp_path: Path, signalled: Any
) -> None:
    signalled(signal.SIGTERM, judged=1)
    ended = stopped(recipe(tmp_path))
    assert str(ended) == "stopped by SIGTERM; there is no checkpoint: --resume begins anew"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_says_so_in_its_last_line(tmp_path: Path, number: int) -> None:
    config = recipe(tmp_path, train={"steps": 10_000, "checkpoint_every": 10_000})
    (tmp_path / "recipe.yaml").write_text(write_yaml(config))
    words = [sys.executable, "-m", "t2i_credit.cli", "train", str(tmp_path / "recipe.yaml")]
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 2):
        time.sleep(0.05)
    process.send_signal(number)
    asked = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number and time.monotonic() - asked < 10
    run = RunReader(tmp_path / "runs" / "run")
    (step,) = run.checkpoints()
    assert step == len(run.metrics())
    name = signal.Signals(number).name
    line = f"stopped by {name}; --resume goes on after step {step}, the newest checkpoint"
    assert told.splitlines()[-1] == line and "Traceback" not in told
