"""The credit maps without a browser: the numbers are those of the run's own arrays."""

from __future__ import annotations

import base64
import csv
import io

import numpy as np
import pytest
from app_toys import PROBE, PROMPT, G, H, V, W, floats, write_toy_run, write_toy_step
from PIL import Image

from t2i_credit.app import credit_maps
from t2i_credit.app.downloads import asked_cells
from t2i_credit.app.runs import RunShelf
from t2i_credit.heatmap.colours import table
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter


def test_the_browser_gets_the_numbers_of_the_arrays_file(shelf):
    value = credit_maps.show(shelf, "one", {"step": 5})
    group = value["group"]
    arrays = RunReader(shelf.root / "one").step(5).arrays
    assert group["step"] == 5 and group["grid"] == [H, W] and group["codebook"] == V
    for sample in group["samples"]:
        codes = np.frombuffer(base64.b64decode(sample["tokens"]), "<i4")
        np.testing.assert_array_equal(codes, arrays["tokens"][sample["place"]])
        for name in ("logprobs", "negative_logprobs", "credit", "token_advantages"):
            shown = floats(sample["arrays"][name])
            np.testing.assert_array_equal(shown, arrays[name][sample["place"]])


def test_a_group_comes_best_reward_first_and_on_one_scale(shelf):
    group = credit_maps.show(shelf, "one", {"step": 5, "prompt": PROMPT})["group"]
    assert [sample["reward"] for sample in group["samples"]] == [3.0, 2.0, 1.0, 0.0]
    values = np.concatenate([floats(s["arrays"]["token_advantages"]) for s in group["samples"]])
    assert 0 < group["scale"]["advantage"] <= np.abs(values).max()


def test_a_step_whose_groups_are_all_flat_is_explained_on_another(shelf, tmp_path):
    assert credit_maps.show(shelf, "one", {})["example"] is None
    run = RunWriter(write_toy_run(tmp_path / "one"))
    write_toy_step(run, 11, alike=True)
    value = credit_maps.show(RunShelf(tmp_path), "one", {})
    assert value["group"]["step"] == 11 and value["group"]["scale"]["advantage"] == 0
    assert value["example"]["step"] == 9 and value["example"]["scale"]["advantage"] > 0


def test_a_step_that_is_not_recorded_gives_the_one_next_to_it(shelf):
    assert credit_maps.show(shelf, "one", {"step": 6})["group"]["step"] == 5
    assert credit_maps.show(shelf, "one", {})["group"]["step"] == 9


def test_another_step_keeps_the_prompt_where_it_was_recorded(shelf):
    for prompt in (PROMPT, PROBE):
        assert (
            credit_maps.show(shelf, "one", {"step": 1, "prompt": prompt})["group"]["prompt"]
            == prompt
        )


def test_a_film_shows_one_prompt_at_every_recorded_step_on_one_scale(shelf):
    film = credit_maps.film(shelf, "one", PROBE)
    assert [frame["step"] for frame in film["frames"]] == [1, 5, 9]
    assert film["grid"] == [H, W] and film["scale"]["advantage"] > 0


def test_a_film_of_a_prompt_recorded_once_names_one_that_comes_back(tmp_path):
    run = RunWriter(write_toy_run(tmp_path / "one", steps=(1, 5)))
    write_toy_step(run, 9, ("a green ring", PROBE))
    film = credit_maps.film(RunShelf(tmp_path), "one", "a green ring")
    assert "1 step(s)" in film["notice"][1] and PROBE in film["notice"][1]


def test_the_table_holds_every_token_of_the_group_exactly(shelf):
    asked_for = {"run": "one", "kind": "csv", "step": 5, "prompt": PROMPT}
    made = credit_maps.save(shelf, asked_for)
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    arrays = RunReader(shelf.root / "one").step(5).arrays
    assert made["name"] == "one-step5-a-red-circle.csv" and len(rows) == G * H * W
    row = rows[
        H * W + 7
    ]  # the second sample's eighth token: row 1, column 2 of a grid of 5 columns
    assert (row["sample"], row["token"], row["row"], row["column"]) == ("1", "7", "1", "2")
    assert int(row["code"]) == arrays["tokens"][1, 7]
    for name in ("logprobs", "negative_logprobs", "credit", "token_advantages"):
        assert np.float32(row[name]) == arrays[name][1, 7], name
    both = arrays["logprobs"] - arrays["negative_logprobs"]
    assert np.float32(row["signed_contrast"]) == both[1, 7]
    assert row["contrast"] != row["signed_contrast"]  # the page's evidence


def test_no_negative_prompt_and_an_empty_one_differ_in_the_table():
    samples = [{"prompt": "a ring", "negative": text} for text in (None, "", "a square")]
    assert [asked_cells(sample, "null prompt") for sample in samples] == [
        ["a ring", "", "null prompt"],
        ["a ring", "", "text"],
        ["a ring", "a square", "text"],
    ]


def test_files_have_the_palettes_of_the_page(shelf):
    def made(kind, palettes):
        asked_for = {"run": "one", "step": 5, "prompt": PROBE, "palettes": palettes}
        return credit_maps.save(shelf, {**asked_for, "kind": kind})

    for kind in ("png", "gif"):
        data = base64.b64decode(made(kind, {"advantage": "glow"})["data"])
        with Image.open(io.BytesIO(data)) as picture:
            shown = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        assert tuple(table("glow")[-1]) in shown and tuple(table("RdBu")[-1]) not in shown
    for palettes in ({"advantage": "viridis"}, {"x": "glow"}, ["glow"], {"credit": ["magma"]}):
        assert "palettes" in made("png", palettes)["error"]


def test_a_prompt_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    write_toy_run(tmp_path / "one", prompts=("=HYPERLINK(1)", PROBE))
    made = credit_maps.save(
        RunShelf(tmp_path), {"run": "one", "kind": "csv", "prompt": "=HYPERLINK(1)"}
    )
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    assert rows[0]["prompt"] == "'=HYPERLINK(1)"


def test_the_picture_and_the_film_can_be_opened(shelf):
    for kind, frames in (("png", 1), ("gif", 3)):
        made = credit_maps.save(shelf, {"run": "one", "kind": kind, "step": 5, "prompt": PROBE})
        with Image.open(io.BytesIO(base64.b64decode(made["data"]))) as picture:
            assert getattr(picture, "n_frames", 1) == frames
            assert picture.width > 600


@pytest.mark.parametrize("asked_for", [{"kind": "exe"}, {"kind": "png", "place": "../1"}, {}])
def test_what_cannot_be_downloaded_is_said(shelf, asked_for):
    assert credit_maps.save(shelf, {"run": "one", **asked_for})["error"]
