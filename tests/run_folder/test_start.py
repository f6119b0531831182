"""A run folder is checked before anything in it is changed, and goes on without what a resume does not need."""

import json

import pytest
from disk import everything
from run_folders import new_run

from t2i_credit.errors import RunError
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter


def planned(path, *, total=10):
    return RunWriter.planned(path, config={"new": 1}, environment={}, total=total, resume=True)


def at_step_6(path):
    run = new_run(path)
    for step in range(1, 8):
        run.append_metrics(step, {"reward": 0.5})
    (run.checkpoints / "000006").mkdir(parents=True)
    run.finish("finished")
    return run


def test_a_planned_run_changes_nothing_before_it_begins(tmp_path):
    new = RunWriter.planned(tmp_path / "new", config={}, environment={}, total=1)
    assert everything(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), new:
        raise KeyboardInterrupt
    assert everything(tmp_path) == []
    run = at_step_6(tmp_path / "r")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="refused"), planned(run.path) as again:
        assert again.resume_step == 6
        raise RunError("refused")
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    again.begin()
    reader = RunReader(run.path)
    assert reader.config() == {"new": 1} and reader.status().state == "running"
    assert [line["step"] for line in reader.metrics()] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_is_past_its_steps_is_refused(tmp_path):
    run = at_step_6(tmp_path / "r")
    with pytest.raises(
        RunError, match=r"train.steps: 5 is not allowed; .*at its checkpoint of step 6: 6 or more"
    ):
        planned(run.path, total=5)
    assert planned(run.path, total=6).resume_step == 6


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"resumed": 3}'])
@pytest.mark.parametrize("name", ["status.json", "environment.json"])
def test_a_run_goes_on_without_status_and_environment(tmp_path, name, content):
    run = at_step_6(tmp_path / "r")
    (run.path / name).unlink()
    if content is not None:
        (run.path / name).write_text(content)
    planned(run.path).begin()
    reader = RunReader(run.path)
    assert reader.status().state == "running" and reader.status().step == 6
    assert [entry["step"] for entry in reader.environment()["resumed"]] == [6]


def test_a_newer_format_is_refused_before_a_resume_too(tmp_path):
    run = at_step_6(tmp_path / "r")
    (run.path / "environment.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="format 99"):
        planned(run.path)


def test_a_folder_that_lost_its_environment_is_still_no_place_for_a_new_run(tmp_path):
    run = at_step_6(tmp_path / "r")
    (run.path / "environment.json").unlink()
    with pytest.raises(RunError, match="this run exists"):
        new_run(run.path)
