"""Damaged and hostile runs in every tab: a line in words, the rest of the page as before, and nothing that is unexpected."""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os

import numpy as np
import pytest
from app_toys import (
    PROBE,
    PROMPT,
    G,
    compared,
    floats,
    forget_numbers,
    notice_of,
    start_toy_run,
    write_text_run,
    write_toy_run,
)
from PIL import Image
from safetensors.numpy import load_file, save_file

from t2i_credit.app import compared as compared_runs
from t2i_credit.app import credit_maps, evaluation, payload, runs, training
from t2i_credit.app.runs import RunShelf, in_words, or_in_words
from t2i_credit.errors import RunError
from t2i_credit.run_folder.writer import RunWriter

HUGE = 10**400  # JSON takes it, no float does


@pytest.fixture
def fresh(tmp_path):
    write_toy_run(tmp_path / "one")
    return RunShelf(tmp_path)


@pytest.fixture(autouse=True)
def nothing_unexpected(caplog):
    """What the page says is foreseen: no traceback in the server's log."""
    yield
    assert not [record for record in caplog.records if record.exc_info]


def change_header(shelf, change, step=9):
    path = shelf.root / f"one/steps/{step:06d}/samples.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))


def sample_with(**entries):
    return lambda header: header["samples"][0].update(entries)


def object_with(**entries):
    return lambda header: header["samples"][0]["objects"][0].update(entries)


def without(name):
    return lambda header: header["samples"][0].pop(name)


SAMPLES = {
    "a mask longer than its picture": object_with(mask={"size": [30, 50], "counts": [1501]}),
    "a mask with a negative run": object_with(mask={"size": [2, 2], "counts": [-1, 5]}),
    "a mask of texts": object_with(mask={"size": [30, 50], "counts": "1500"}),
    "a mask without size": object_with(mask={"counts": [1500]}),
    "a box of one number": object_with(box=[3]),
    "a box that is a number": object_with(box=3),
    "a box without end": object_with(box=[0, 0, float("inf"), 1]),
    "an object that is a text": sample_with(objects=["circle"]),
    "objects that are a number": sample_with(objects=3),
    "an image that is a number": sample_with(image=3),
    "a prompt that is a number": sample_with(prompt=3),
    "a negative that is a list": sample_with(negative=["x"]),
    "a reward that is a text": sample_with(reward="1.0"),
    "a reward beyond all numbers": sample_with(reward=HUGE),
    "an advantage that is a text": sample_with(advantage="1.0"),
    "a part that is a text": sample_with(reward_parts={"geneval": "1"}),
    "parts that are a list": sample_with(reward_parts=[1]),
    "a group that is endless": sample_with(group=float("inf")),
    "a group that is a list": sample_with(group=[0]),
    "no advantage": without("advantage"),
    "no reward": without("reward"),
    "a sample that is a text": lambda header: header["samples"].__setitem__(0, "x"),
    "a grid of texts": lambda header: header.update(grid=["3", "5"]),
    "a grid below nothing": lambda header: header.update(grid=[-3, -5]),
}


@pytest.mark.parametrize("change", SAMPLES.values(), ids=SAMPLES)
def test_a_damaged_record_is_one_line_everywhere_and_the_step_before_is_shown(fresh, change):
    change_header(fresh, change)
    said = notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    assert "000009" in said and "unexpected" not in said and "\n" not in said
    assert "step 5" in training.newest(fresh, "one")["groups"][0]["says"]
    for kind in ("png", "csv"):
        made = credit_maps.save(fresh, {"run": "one", "kind": kind, "step": 9, "prompt": PROMPT})
        assert "000009" in made["error"] and "unexpected" not in made["error"]
    film = credit_maps.film(fresh, "one", PROBE)
    assert [frame["step"] for frame in film["frames"]] == [1, 5]
    assert credit_maps.save(fresh, {"run": "one", "kind": "gif", "step": 5})["mime"] == "image/gif"
    curves, pictures = (compared(fresh, ["one"])[i] for i in (0, 2))
    assert curves["figures"][0]["data"] and "notice" in pictures


def test_a_file_name_that_no_system_takes_leaves_the_maps(fresh):
    change_header(fresh, sample_with(image="a\0b.png"))
    group = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})["group"]
    assert [sample["place"] for sample in group["samples"] if sample["image"] is None] == [0]


def test_a_mask_of_another_size_than_the_picture_is_left_out_before_it_is_unpacked(fresh):
    wide = {"size": [10**6, 10**6], "counts": [10**12]}  # a terabyte
    change_header(fresh, object_with(mask=wide))
    group = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})["group"]
    first = next(sample for sample in group["samples"] if sample["place"] == 0)
    assert first["located"] is None and first["objects"][0]["path"].startswith("M10 5")  # the box


@pytest.mark.parametrize("name", ["tokens", "credit"])
def test_arrays_of_another_type_are_refused_by_name(fresh, name):
    path = fresh.root / "one/steps/000009/arrays.safetensors"
    arrays = load_file(path)
    arrays[name] = arrays[name].astype(np.float32 if name == "tokens" else np.int32)
    save_file(arrays, path)
    assert f"{name} has numbers of type" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    arrays[name] = arrays[name].astype(np.int64 if name == "tokens" else np.float64)
    save_file(arrays, path)
    assert f"{name} has numbers of type" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))


def test_halves_of_characters_are_told_by_their_escapes(fresh):
    def spoil(header):
        for sample in header["samples"]:
            sample["prompt"] = "half \ud800"
            sample["reward_parts"] = {"part \ud800": 1.0}
            sample["objects"][0] |= {"name": "circle \ud800", "color": "red \ud800"}

    change_header(fresh, spoil)
    value = credit_maps.show(fresh, "one", {"step": 9})
    json.dumps(value, ensure_ascii=False).encode()  # can be sent
    made = credit_maps.save(fresh, {"run": "one", "kind": "csv", "step": 9})
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    assert rows[0]["prompt"] == "half \\ud800"
    assert credit_maps.save(fresh, {"run": "one", "kind": "png", "step": 9})["mime"]


def test_a_run_whose_name_is_no_text_is_listed_and_the_others_stay(fresh):
    (fresh.root / os.fsdecode(b"half \xff")).mkdir()
    (fresh.root / os.fsdecode(b"half \xff") / "environment.json").write_text('{"format": 1}')
    choices = fresh.choices(fresh.statuses())
    json.dumps(choices, ensure_ascii=False).encode()  # can be sent
    assert [name for _, name in choices] == ["one", "half \\udcff"]
    assert "not the name of a run" in training.numbers(fresh, "half \\udcff")[0]


# ---- metrics and status


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1e400, "reward": 1}',
        '{"step": "10", "reward": 1}',
        f'{{"step": 10, "reward": {HUGE}, "time/step": {HUGE}, "entropy": {HUGE}}}',
        '{"step": 10, "reward": "high", "time/step": "long", "time/tokens_per_second": "many"}',
        '{"step": 10, "reward": [1], "time/step": {}, "entropy": [2]}',
    ],
)
def test_a_damaged_line_of_metrics_leaves_the_curves(tmp_path, line):
    run = start_toy_run(tmp_path / "one")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    shelf = RunShelf(tmp_path)
    strip, curves = training.numbers(shelf, "one")
    assert "running" in strip and "<b>0 s</b>" in strip  # time left, by the steps that say theirs
    assert len(curves["figures"][0]["data"][-1]["x"]) >= 9
    shown = compared(shelf, ["one"])[0]
    assert shown["figures"][0]["data"]


@pytest.mark.parametrize("wrong", [{"step": "9"}, {"total": "9"}, {"message": 3}])
def test_a_damaged_status_is_said_and_the_other_run_is_offered(tmp_path, wrong):
    for name in ("good", "bad"):
        start_toy_run(tmp_path / name)
    path = tmp_path / "bad/status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    shelf = RunShelf(tmp_path)
    assert [name for _, name in shelf.choices(shelf.statuses())] == ["good", "bad"]
    strip, _ = training.numbers(shelf, "bad")
    assert "status.json: not a run status" in strip and "unexpected" not in strip


# ---- compare


def test_metrics_that_cannot_be_read_leave_the_other_runs_in_the_comparison(tmp_path):
    for name in ("good", "bad"):
        write_toy_run(tmp_path / name, steps=(9,))
    metrics = tmp_path / "bad/metrics.jsonl"
    metrics.unlink()
    metrics.mkdir()
    curves, _, pictures = compared(RunShelf(tmp_path), ["bad", "good"])
    assert [t["name"] for t in curves["figures"][0]["data"]] == ["good"]
    assert "bad/metrics.jsonl" in curves["said"] and pictures["groups"]


@pytest.mark.parametrize("config", ["train: {seed: [1]}", "train: &a {seed: 1, more: *a}"])
def test_a_configuration_that_is_none_is_a_method_of_its_own(tmp_path, config):
    for name in ("good", "bad"):
        write_toy_run(tmp_path / name, steps=(9,))
    (tmp_path / "bad/config.yaml").write_text(config + "\n")
    curves, _, _ = compared(RunShelf(tmp_path), ["bad", "good"])
    assert [t["name"] for t in curves["figures"][0]["data"]] == ["bad", "good"]


# ---- evaluation


DETAILS = {
    "a detection without confidence": {"circle": [[4, 6, 20, 26]]},
    "a detection that is a number": {"circle": 3},
    "detections that are a list": [1],
    "a side that is a text": {"circle": [["left", 6, 20, 26, 0.9]]},
}


@pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
def test_damaged_detections_are_named_and_the_scores_stay(fresh, details):
    path = fresh.root / "one/evaluations/train-cfg2.jsonl"
    first, second = path.read_text().splitlines()
    damaged = {**json.loads(second), "details": details}
    path.write_text(f"{first}\n{json.dumps(damaged)}\n")
    bars, table, gallery, _ = evaluation.update(fresh, "one", None)
    assert bars["figures"] and "colors" in table
    said = notice_of(gallery)
    assert "line 2: a damaged record" in said and "unexpected" not in said


@pytest.mark.parametrize("text", ["[1]", '{"summary": 3}', '{"summary": {}, "paired": {"a": 3}}'])
def test_damaged_scores_are_said(fresh, text):
    (fresh.root / "one/evaluations/train-cfg2.json").write_text(text)
    said = notice_of(evaluation.update(fresh, "one", None)[0])
    assert "cannot be shown" in said and "unexpected" not in said


def test_an_evaluation_of_a_run_on_text_speaks_of_answers(tmp_path):
    run = RunWriter(write_text_run(tmp_path / "text", steps=()))
    row = {"correct": 0.5, "low": 0.25, "high": 0.75, "pass_at_k": 0.8, "prompts": 3, "answers": 12}
    protocol = {"split": "train", "problems": 3, "answers": 4, "temperature": 1.0, "seed": 0}
    result = {"format": 1, "protocol": protocol, "summary": {"2": row, "overall": row}}
    answer = {"prompt": "2+3:", "steps": 2, "completion": "5", "correct": True}
    run.write_evaluation("train-3x4-t1-seed0", result, [answer])
    shelf = RunShelf(tmp_path)
    bars, table, gallery, _ = evaluation.update(shelf, "text", None)
    assert bars["figures"][0]["title"] == "Correct answers by task"
    assert "answers" in bars["figures"][0]["says"] and "image" not in json.dumps(bars)
    assert "<th>answers</th>" in table and "<td>12</td>" in table
    assert "run on text" not in table and "damaged" not in notice_of(gallery)
    assert "train-3x4-t1-seed0.jsonl" in notice_of(gallery)
    shown = compared(shelf, ["text"])[0]
    assert shown["figures"][1]["title"] == "Correct answers: train-3x4-t1-seed0"


# ---- numbers that are none


def test_numbers_that_are_not_finite_reach_the_browser_as_they_are(fresh):
    forget_numbers(fresh.root / "one")
    group = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})["group"]
    first = next(sample for sample in group["samples"] if sample["place"] == 0)
    assert floats(first["arrays"]["logprobs"])[0] == -np.inf
    assert np.isnan(floats(first["arrays"]["token_advantages"])[1])
    scale = group["scale"]
    assert all(np.isfinite(scale[name]) for name in ("credit", "contrast", "advantage"))


def test_a_reward_that_was_not_finite_counts_in_no_mean(fresh):
    change_header(fresh, sample_with(reward=None, advantage=None))  # the others have 1, 2 and 3
    recorded = next(g for g in fresh.recorded(fresh.open("one"), 9) if g.prompt == PROMPT)
    assert recorded.rewards == (1.0, 2.0, 3.0)
    rows = compared_runs.pictures_value(fresh, [fresh.open("one")], PROMPT)["groups"]
    assert "mean reward 2.00" in rows[0]["says"]

    def none_known(header):
        for sample in header["samples"]:
            sample["reward"] = sample["advantage"] = None

    change_header(fresh, none_known)
    newest = training.newest(fresh, "one")["groups"][0]
    assert "mean reward n/a" in newest["says"] and len(newest["samples"]) == G


# ---- very many


def test_of_very_many_samples_and_groups_the_first_are_shown(fresh):
    def grow(header):
        (one, *_), samples = header["samples"], header["samples"]
        samples += [{**one, "image": "none.png"} for _ in range(runs.MOST_SAMPLES)]
        samples += [{**one, "group": 100 + n} for n in range(runs.MOST_GROUPS)]
        path = fresh.root / "one/steps/000009/arrays.safetensors"
        arrays = load_file(path).items()
        rows = [*range(2 * G), *[0] * (len(samples) - 2 * G)]
        save_file({name: array[rows] for name, array in arrays}, path)

    change_header(fresh, grow)
    shown = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})
    assert len(shown["prompts"]) == runs.MOST_GROUPS and shown["group"]["of"] == G + 64
    assert len(shown["group"]["samples"]) == runs.MOST_SAMPLES


@pytest.mark.parametrize("limit", ["MOST_SHOWN", "MOST_SECONDS"])
def test_pictures_that_cost_too_much_are_left_out_and_said(fresh, monkeypatch, limit):
    monkeypatch.setattr(payload, limit, 1 if limit == "MOST_SHOWN" else -1)
    group = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})["group"]
    first = limit == "MOST_SHOWN"  # the first of which nobody knew that it is large
    assert [bool(one["image"]) for one in group["samples"]] == [first, *[False] * (G - 1)]
    assert [one.get("left_out") for one in group["samples"]][first:] == [True] * (G - first)
    assert credit_maps.film(fresh, "one", PROBE)["frames"]


def test_masks_of_a_great_many_edges_or_objects_are_not_drawn(fresh):
    checks = {"size": [30, 50], "counts": [1] * 1500}
    change_header(fresh, sample_with(objects=[{"name": "x", "mask": checks, "box": None}] * 500))
    group = credit_maps.show(fresh, "one", {"step": 9, "prompt": PROMPT})["group"]
    first = next(sample for sample in group["samples"] if sample["place"] == 0)
    assert len(first["objects"]) == payload.MOST_OBJECTS
    assert payload.outline(np.indices((300, 300)).sum(0) % 2 == 1) == ""


# ---- downloads


def test_a_deleted_picture_costs_its_own_panel_and_its_frame_alone(fresh):
    asked = {"run": "one", "step": 9, "prompt": PROBE}
    (fresh.root / f"one/steps/000009/{G:04d}.png").unlink()
    assert f"{G:04d}.png" in credit_maps.save(fresh, {**asked, "kind": "png", "place": G})["error"]
    assert credit_maps.save(fresh, {**asked, "kind": "png", "place": G + 1})["mime"] == "image/png"
    made = credit_maps.save(fresh, {**asked, "kind": "gif"})
    with Image.open(io.BytesIO(base64.b64decode(made["data"]))) as film:
        assert film.n_frames == 2  # of steps 1, 5 and 9
    (fresh.root / f"one/steps/000005/{G:04d}.png").write_bytes(b"no picture")
    said = credit_maps.save(fresh, {**asked, "kind": "gif"})["error"]
    assert "two pictures" in said and f"{G:04d}.png" in said


# ---- what nobody foresaw


def test_an_unexpected_error_becomes_a_note_and_lies_in_the_log(caplog):
    @or_in_words(lambda why, name: [name, why])
    def broken(name):
        raise ZeroDivisionError("by\nzero")

    with caplog.at_level(logging.ERROR):
        assert broken("one") == ["one", "unexpected ZeroDivisionError: by zero"]
    (record,) = caplog.records
    assert "broken" in record.getMessage() and record.exc_info[0] is ZeroDivisionError
    caplog.clear()


def test_an_error_of_the_user_becomes_a_note_alone(caplog):
    @or_in_words(lambda why: why)
    def refuses():
        raise RunError("no such run \ud800")

    assert refuses() == "no such run \\ud800" == in_words(RunError("no such run \ud800"))
    assert not caplog.records
