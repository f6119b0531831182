"""The evaluation tab without a browser: the gallery, its pictures, and what changed."""

from __future__ import annotations

from app_toys import HEIGHT, WIDTH
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
