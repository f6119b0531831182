"""Bad runs and hostile names: the page says what is wrong and stays, and nothing outside the folder is shown."""

from __future__ import annotations

import json

import pytest
from app_toys import PROMPT, H, W, compared, floats, notice_of, write_toy_run
from PIL import Image

from t2i_credit.app import credit_maps, evaluation, training
from t2i_credit.app.runs import RunShelf
from t2i_credit.errors import RunError
from t2i_credit.run_folder.writer import RunWriter

# ---- bad runs: the page says what is wrong, and stays


def test_no_runs_folder_and_an_empty_one_say_what_to_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        shelf = RunShelf(folder)
        assert "t2i-credit train" in training.numbers(shelf, None)[0]
        assert "t2i-credit train" in notice_of(credit_maps.show(shelf, None, {}))
        assert "t2i-credit train" in notice_of(compared(shelf, [])[0])
        assert evaluation.update(shelf, None, None)[0]["kind"] == "notice"


def test_a_run_that_has_just_begun_says_what_will_come(tmp_path):
    RunWriter.create(tmp_path / "new", config={}, environment={}, total=9)
    shelf = RunShelf(tmp_path)
    strip, curves = training.numbers(shelf, "new")
    newest = training.newest(shelf, "new")
    assert "running" in strip and "No picture yet" in notice_of(newest)
    assert "No step yet" in notice_of(curves)
    assert "No step recorded yet" in notice_of(credit_maps.show(shelf, "new", {}))
    assert "t2i-credit evaluate" in notice_of(evaluation.update(shelf, "new", None)[0])


def test_a_corrupt_arrays_file_is_named_and_the_step_before_is_shown(fresh):
    (fresh.root / "one/steps/000009/arrays.safetensors").write_bytes(b"no safetensors")
    assert "arrays.safetensors" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    assert "step 5" in training.newest(fresh, "one")["groups"][0]["says"]


def test_pictures_that_were_deleted_leave_the_maps(fresh):
    for picture in (fresh.root / "one/steps/000009").glob("*.png"):
        picture.unlink()
    group = credit_maps.show(fresh, "one", {"step": 9})["group"]
    assert all(sample["image"] is None for sample in group["samples"])
    assert floats(group["samples"][0]["arrays"]["credit"]).shape == (H * W,)
    asked_for = {"run": "one", "kind": "png", "step": 9, "prompt": PROMPT}
    assert "0000.png" in credit_maps.save(fresh, asked_for)["error"]


def test_arrays_of_another_shape_are_refused_by_name(fresh):
    path = fresh.root / "one/steps/000009/samples.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, "grid": [H + 1, W]}))
    assert "has shape" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grid": 3, "samples": {}}', '{"samples": [1]}'])
def test_half_a_record_is_one_line(fresh, text):
    (fresh.root / "one/steps/000009/samples.json").write_text(text)
    assert "samples.json" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    assert "step 5" in training.newest(fresh, "one")["groups"][0]["says"]


def test_a_run_of_a_newer_format_is_listed_and_explained(fresh):
    (fresh.root / "one/environment.json").write_text('{"format": 99}')
    assert fresh.choices(fresh.statuses()) == [("one  (cannot be read)", "one")]
    assert "format 99" in training.numbers(fresh, "one")[0]


def test_a_damaged_evaluation_is_one_line(fresh):
    (fresh.root / "one/evaluations/train-cfg2.json").write_text('{"summary": {"colors": 3}}')
    assert "cannot be shown" in notice_of(evaluation.update(fresh, "one", None)[0])


def test_a_hundred_runs_are_listed(tmp_path):
    write_toy_run(tmp_path / "run-000", steps=(1,), evaluation=False)
    for number in range(1, 100):
        target = tmp_path / f"run-{number:03d}"
        target.mkdir()
        for name in ("environment.json", "status.json", "config.yaml"):
            (target / name).write_bytes((tmp_path / "run-000" / name).read_bytes())
    shelf = RunShelf(tmp_path)
    assert len(shelf.choices(shelf.statuses())) == 100


# ---- nothing outside the folder


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../secret",
        "/etc",
        "one/../../secret",
        "..\\secret",
        "%2e%2e",
        ".",
        "one\0",
        "half \ud800",
        "loop",
        "",
        3,
        None,
    ],
)
def test_a_name_that_leads_out_of_the_folder_opens_nothing(tmp_path, name):
    write_toy_run(tmp_path / "secret")
    write_toy_run(tmp_path / "runs" / "one", steps=())
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs" / "loop")
    with pytest.raises(RunError):
        RunShelf(tmp_path / "runs").open(name)


def test_symbolic_links_that_lead_out_are_not_followed(tmp_path):
    write_toy_run(tmp_path / "secret")
    write_toy_run(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    step = tmp_path / "runs/one/steps/000009"
    for name in ("0000.png", "arrays.safetensors"):
        (step / name).unlink()
        (step / name).symlink_to(tmp_path / "secret/steps/000009" / name)
    shelf = RunShelf(tmp_path / "runs")
    with pytest.raises(RunError, match="leads out"):
        shelf.open("link")
    assert [s.state for s in shelf.statuses() if s.path.name == "link"] == ["unreadable"]
    assert "leads out" in notice_of(credit_maps.show(shelf, "one", {"step": 9}))
    metrics = tmp_path / "runs/one/metrics.jsonl"
    metrics.unlink()
    metrics.symlink_to(tmp_path / "secret/metrics.jsonl")
    assert "leads out" in training.numbers(shelf, "one")[0]


def test_a_picture_name_that_leads_out_shows_no_picture(tmp_path):
    write_toy_run(tmp_path / "runs" / "one")
    Image.new("RGB", (50, 30), "red").save(tmp_path / "secret.png")
    path = tmp_path / "runs/one/steps/000009/samples.json"
    header = json.loads(path.read_text())
    for sample in header["samples"]:
        sample["image"] = "../../../../secret.png"
    path.write_text(json.dumps(header))
    group = credit_maps.show(RunShelf(tmp_path / "runs"), "one", {"step": 9})["group"]
    assert all(sample["image"] is None for sample in group["samples"])


def test_a_record_whose_file_name_leads_out_shows_no_picture(tmp_path):
    write_toy_run(tmp_path / "runs" / "one")
    Image.new("RGB", (50, 30), "red").save(tmp_path / "secret.png")
    reader = RunShelf(tmp_path / "runs").open("one")
    with pytest.raises(RunError, match="leads out"):
        reader.evaluation_image("train-cfg2", "../../../../secret.png")
