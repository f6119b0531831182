"""The evaluation tab without a browser: the gallery, its pictures, and what changed."""

from __future__ import annotations

import pytest
from app_toys import HEIGHT, SCRIPT, WIDTH, write_rewarded_evaluation
from PIL import Image

from t2i_credit.app import evaluation


def test_the_gallery_is_filtered_by_task_and_verdict(shelf):
    def shown(**asked_for):
        return evaluation.page_of(shelf, "one", "train-cfg2", asked_for)["items"]

    assert len(shown()) == 2
    assert [item["reason"] for item in shown(verdict="wrong")] == [
        "expected left of, found right of"
    ]
    assert [item["task"] for item in shown(task="colors")] == ["colors"]
    assert shown(task="colors", verdict="wrong") == []
    assert len(shown(task="<script>", verdict=3, page="x")) == 2  # what is unknown is ignored


def test_pictures_of_an_evaluation_are_shown_where_they_were_kept(fresh):
    item = evaluation.page_of(fresh, "one", "train-cfg2", {})["items"][0]
    assert item["image"] is None and item["size"] == [32.0, 32.0]  # boxes up to 26: two times 16
    folder = fresh.root / "one/evaluations/train-cfg2/00000/samples"
    folder.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "00000.png")
    item = evaluation.page_of(fresh, "one", "train-cfg2", {})["items"][0]
    assert item["image"].startswith("data:image/png") and item["size"] == [WIDTH, HEIGHT]


def test_the_table_says_what_changed(shelf):
    _, bars, table, _ = evaluation.update(shelf, "one", None)
    assert [trace["name"] for trace in bars["figures"][0]["data"]] == ["before", "after"]
    assert "+0.25" in table and "[+0.05, +0.40]" in table


def test_an_evaluation_by_rewards_shows_curves_figures_and_what_each_image_got(fresh):
    write_rewarded_evaluation(fresh.root / "one")
    _, charts, table, page = evaluation.update(fresh, "one", "list-clip-cfg2")
    clip, other = charts["figures"]
    assert clip["data"][0]["y"] == [
        pytest.approx(0.255),
        pytest.approx(0.35),
    ]  # prompts' means, sorted
    assert other["data"][0]["y"] == [21.5, 21.5]
    for shown in ("0.3000</b>", "[0.2000, 0.4000]", "0.1000</b>", "[+0.0500, +0.1500]"):
        assert shown in table
    assert SCRIPT not in table  # a name is text
    assert [item["verdict"].split(",")[0] for item in page["items"]] == [
        "clip 0.25",
        "clip 0.26",
        "clip 0.35",
        "missing",
    ]
    assert page["verdicts"] == []
