"""What the inspector asks of one sample and one place: the numbers of the run's own arrays, in bounds, and in words where it
cannot be read."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from app_others import K, S, add_others
from app_toys import PROBE, PROMPT, G, H, W, floats, write_large_run, write_text_run, write_toy_run
from PIL import Image

from t2i_credit.app import credit_maps, one_token, single_file, steps
from t2i_credit.app.payload import Room
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.alternatives import read_alternatives
from t2i_credit.run_folder.reader import RunReader


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> RunShelf:
    root = tmp_path_factory.mktemp("shelf")
    add_others(write_toy_run(root / "one"))
    write_toy_run(root / "older")
    write_text_run(root / "text")
    return RunShelf(root)


def step_of(shelf: RunShelf, step: int) -> RunReader:
    return RunReader(shelf.root / "one").step(step)


def test_other_codes_come_with_their_log_probs_and_exact_patches(shelf: RunShelf) -> None:
    told = one_token.others(shelf, {"run": "one", "step": 5, "place": 2})
    record = step_of(shelf, 5)
    found = read_alternatives(record, 2)
    assert found is not None and (told["count"], told["side"]) == (K, S)
    codes = np.frombuffer(base64.b64decode(told["codes"]), "<i4").reshape(-1, K)
    np.testing.assert_array_equal(codes, found.codes)
    np.testing.assert_array_equal(floats(told["logprobs"]).reshape(-1, K), found.logprobs)
    np.testing.assert_array_equal(floats(told["taken"]), record.arrays["guided_logprobs"][2])
    kind, _, text = told["pictures"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(text))) as back:
        assert kind == "data:image/png;base64" and back.size == (W * S, K * H * S)
        assert back.tobytes() == found.pictures.tobytes()


def test_a_step_says_whether_it_has_them_and_sends_none(shelf: RunShelf) -> None:
    with_them = credit_maps.show(shelf, "one", {"step": 5})
    without = credit_maps.show(shelf, "older", {"step": 5})
    assert with_them["group"]["others"] is True and without["group"]["others"] is False
    assert abs(len(json.dumps(with_them)) - len(json.dumps(without))) < 10


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"run": "older", "step": 5, "place": 0}, "recorded no other codes"),
        ({"run": "one", "step": 6, "place": 0}, "not recorded"),
        ({"run": "one", "step": "5", "place": 0}, "no recorded step"),
        ({"run": "one", "step": 5, "place": 2 * G}, "holds no sample 8"),
        ({"run": "one", "step": 5, "place": -1}, "holds no sample -1"),
        ({"run": "one", "step": 5, "place": True}, "holds no sample True"),
        ({"run": "../one", "step": 5, "place": 0}, "not the name of a run"),
        ({"run": "text", "step": 5, "place": 0}, "run on text"),
        ({}, "no run is chosen"),
    ],
)
def test_what_is_not_there_is_said(shelf: RunShelf, asked: dict[str, object], why: str) -> None:
    told = one_token.others(shelf, asked)
    assert why in told["error"] and "unexpected" not in told["error"]


def test_damaged_ones_are_a_line_and_the_step_is_shown(tmp_path: Path) -> None:
    run = add_others(write_toy_run(tmp_path / "one"))
    (run / "steps/000005/alternatives.safetensors").write_bytes(b"x")
    (run / "steps/000009/0001-alternatives.png").unlink()
    shelf = RunShelf(tmp_path)
    for step, named in ((5, "alternatives.safetensors"), (9, "0001-alternatives.png")):
        told = one_token.others(shelf, {"run": "one", "step": step, "place": 1})
        assert named in told["error"] and "unexpected" not in told["error"]
        assert credit_maps.show(shelf, "one", {"step": step})["kind"] == "group"
    assert "codes" in one_token.others(shelf, {"run": "one", "step": 9, "place": 2})


def test_a_place_through_training_is_one_sample_at_every_step(shelf: RunShelf) -> None:
    for prompt, first, same in ((PROMPT, 0, False), (PROBE, G, True)):
        told = one_token.through(shelf, {"run": "one", "prompt": prompt, "number": 2})
        assert told["steps"] == [1, 5, 9] and told["known"] == 3
        assert told["places"] == [first + 2] * 3 and told["same"] is same
        assert told["advantages"] == [0.5] * 3  # rewards 0, 1, 2, 3 less 1.5
        expected = [step_of(shelf, s).arrays["credit"][first + 2] for s in (1, 5, 9)]
        np.testing.assert_array_equal(floats(told["credit"]).reshape(3, -1), expected)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"run": "one", "prompt": "a green ring", "number": 0}, "no step recorded"),
        ({"run": "one", "prompt": {"a": 1}, "number": 0}, "no step recorded"),
        ({"run": "one", "prompt": PROMPT, "number": G}, "no step recorded"),
        ({"run": "one", "prompt": PROMPT, "number": -1}, "no place in a group"),
        ({"run": "one", "prompt": PROMPT, "number": 1.0}, "no place in a group"),
        ({"run": "text", "prompt": "2+3:", "number": 0}, "can be read"),
    ],
)
def test_a_place_that_is_nowhere_is_said(
    shelf: RunShelf, asked: dict[str, object], why: str
) -> None:
    told = one_token.through(shelf, asked)
    assert why in told["error"] and "unexpected" not in told["error"]


def test_a_step_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    run = write_toy_run(tmp_path / "one")
    (run / "steps/000005/arrays.safetensors").write_bytes(b"x")
    told = one_token.through(RunShelf(tmp_path), {"run": "one", "prompt": PROBE, "number": 0})
    assert told["steps"] == [1, 9]


def test_many_steps_are_thinned_and_reading_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy_run(tmp_path / "one", steps=tuple(range(1, 10)), prompts=(PROBE,), evaluation=False)
    shelf, asked = RunShelf(tmp_path), {"run": "one", "prompt": PROBE, "number": 0}
    monkeypatch.setattr(one_token, "MOST_STEPS", 3)
    told = one_token.through(shelf, asked)
    assert told["steps"] == [1, 5, 9] and told["known"] == 9
    monkeypatch.setattr(steps, "READING_SECONDS", -1.0)
    assert one_token.through(shelf, asked)["steps"] == [9]  # the newest is read first


@pytest.mark.parametrize("many", [1, 2, 3, 8, 100])
def test_wherever_reading_ends_the_steps_are_spread_over_the_run(many: int) -> None:
    order = list(steps.coarse_first(many))
    assert sorted(order) == list(range(many))
    for cut in range(2, many):
        read = sorted(order[:cut])
        gaps = np.diff(read)
        assert {0, many - 1} <= set(read) and gaps.max() <= max(2, 4 * many / cut)


def test_a_sample_of_24_x_24_tokens_is_small(tmp_path: Path) -> None:
    add_others(write_large_run(tmp_path / "large", steps=(1,)))
    shelf = RunShelf(tmp_path)
    told = one_token.others(shelf, {"run": "large", "step": 1, "place": 0})
    assert len(json.dumps(told)) < 400_000


def test_one_file_holds_them_as_long_as_there_is_room(shelf: RunShelf) -> None:
    reader = RunReader(shelf.root / "one")

    def pages() -> list[dict[str, object]]:
        return [credit_maps.show(shelf, "one", {"step": s}) for s in reader.steps()]

    every, some = pages(), pages()
    single_file.with_others(shelf, "one", every, Room(10_000_000, 60))
    assert all([one["place"] for one in page["others"]] for page in every)
    size = len(json.dumps(every[0]["others"]))
    single_file.with_others(shelf, "one", some, Room(int(1.5 * size), 60))
    assert ["others" in page for page in some] == [True, False, False]
    assert [page["group"]["others"] for page in some] == [True, None, None]
