"""The evaluation tab without a browser: the gallery, its pictures, and what changed."""

from __future__ import annotations

import json

import pytest
from app_toys import (
    HEIGHT,
    PROMPT,
    SCRIPT,
    WIDTH,
    write_paired_evaluation,
    write_rewarded_evaluation,
    write_toy_evaluation,
    write_toy_run,
)
from PIL import Image

from t2i_credit.app import compare, evaluation, gallery
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.writer import RunWriter


def items(page):
    """The images of a page of the gallery."""
    return [item for card in page["cards"] for item in card["items"]]


def test_the_gallery_is_filtered_by_task_and_verdict(shelf):
    def shown(**asked_for):
        return items(gallery.page_of(shelf, "one", "train-cfg2", asked_for))

    assert len(shown()) == 2
    assert [item["reason"] for item in shown(verdict="wrong")] == [
        "expected left of, found right of"
    ]
    assert [item["task"] for item in shown(task="colors")] == ["colors"]
    assert shown(task="colors", verdict="wrong") == []
    assert len(shown(task="<script>", verdict=3, page="x")) == 2  # what is unknown is ignored


def test_pictures_of_an_evaluation_are_shown_where_they_were_kept(fresh):
    item = items(gallery.page_of(fresh, "one", "train-cfg2", {"order": "in order"}))[0]
    assert item["image"] is None and item["size"] == [32.0, 32.0]  # boxes up to 26: two times 16
    folder = fresh.root / "one/evaluations/train-cfg2/00000/samples"
    folder.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "00000.png")
    item = items(gallery.page_of(fresh, "one", "train-cfg2", {"order": "in order"}))[0]
    assert item["image"].startswith("data:image/png") and item["size"] == [WIDTH, HEIGHT]


def test_the_table_says_what_changed(shelf):
    bars, table, _, said = evaluation.update(shelf, "one", None)
    assert said == ""  # nothing was warned of
    assert [trace["name"] for trace in bars["figures"][0]["data"]] == ["before", "after"]
    assert "+0.250" in table and "[+0.050, +0.400]" in table


def test_a_demo_without_evaluations_points_to_those_of_its_base(tmp_path):
    write_toy_run(tmp_path / "demo", evaluation=False)
    shelf = RunShelf(tmp_path)
    assert "began with" not in str(evaluation.update(shelf, "demo")[0]["notice"])
    write_toy_run(tmp_path / "demo-base", steps=())
    told = str(evaluation.update(shelf, "demo")[0]["notice"])
    assert "the model that it began with: train-cfg2, of the run demo-base" in told


def test_pass_at_k_and_partial_are_explained(shelf):
    table = evaluation.update(shelf, "one", None)[1]
    assert all(f'data-term="{name}"' in table for name in ("pass@k", "partial"))


def test_what_evaluate_warned_of_is_said_first(fresh):
    path = fresh.root / "one/evaluations/train-cfg2.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "warnings": ["24 of 24 <b>prompts</b>", 3]}))
    assert "24 of 24 &lt;b&gt;prompts" in evaluation.update(fresh, "one", None)[3]
    path.write_text(json.dumps({**known, "warnings": {"a": 1}}))
    assert evaluation.update(fresh, "one", None)[3] == ""


def test_an_evaluation_by_rewards_shows_curves_figures_and_what_each_image_got(fresh):
    write_rewarded_evaluation(fresh.root / "one")
    charts, table, page, _ = evaluation.update(fresh, "one", "list-clip-cfg2")
    clip, other = charts["figures"]
    assert clip["data"][0]["y"] == [
        pytest.approx(0.255),
        pytest.approx(0.35),
    ]  # prompts' means, sorted
    assert other["data"][0]["y"] == [21.5, 21.5]
    for shown in ("0.3000</b>", "[0.2000, 0.4000]", "0.1000</b>", "[+0.0500, +0.1500]"):
        assert shown in table
    assert SCRIPT not in table  # a name is text
    assert [item["verdict"].split(",")[0] for item in items(page)] == [
        "clip 0.25",
        "clip 0.26",
        "clip 0.35",
        "missing",
    ]
    assert page["verdicts"] == {}


def test_prompts_stand_worst_first_beside_what_they_were_before(fresh):
    write_paired_evaluation(fresh.root / "one")

    def page(**asked_for):
        return gallery.page_of(fresh, "one", "list-cfg2", asked_for)

    first = page()
    told = [(card["prompt"], card["right"], card["was"], card["of"]) for card in first["cards"]]
    assert told == [(f"{PROMPT} 1", 1, 2, 2), (f"{PROMPT} 0", 2, 1, 2), (f"{PROMPT} 2", 2, 2, 2)]
    assert first["verdicts"] == {"all": 6, "wrong": 1, "right": 5, "gained": 1, "lost": 1}
    (lost,), (gained,) = (items(page(verdict=one)) for one in ("lost", "gained"))
    assert (lost["verdict"], lost["before"]["verdict"]) == ("wrong", "right")
    assert gained["prompt"] == f"{PROMPT} 0" and gained["before"]["image"] != gained["image"]
    in_order = [card["prompt"] for card in page(order="in order")["cards"]]
    assert in_order == [f"{PROMPT} {p}" for p in range(3)]


def test_a_damaged_record_of_before_is_named(fresh):
    write_paired_evaluation(fresh.root / "one")
    path = fresh.root / "one/evaluations/list-cfg2/before/evaluation.jsonl"
    path.write_text("{}\n")
    said = " ".join(gallery.page_of(fresh, "one", "list-cfg2", {})["notice"])
    assert "before/evaluation.jsonl, line 1: a damaged record" in said


def test_pages_hold_whole_prompts(monkeypatch, fresh):
    write_paired_evaluation(fresh.root / "one")
    monkeypatch.setattr(gallery, "PER_PAGE", 3)
    pages = [gallery.page_of(fresh, "one", "list-cfg2", {"page": n}) for n in (0, 1, 7)]
    assert [len(page["cards"]) for page in pages] == [2, 1, 1] and pages[0]["pages"] == 2


def test_another_evaluation_is_another_sign_and_the_one_that_is_shown_stays(fresh):
    listed, shown = evaluation.signs(fresh, "one", "train-cfg2")
    assert [listed, shown] == evaluation.signs(fresh, "one", "train-cfg2")
    write_paired_evaluation(fresh.root / "one", "newer")
    after = evaluation.signs(fresh, "one", "train-cfg2")
    assert after[0] != listed and after[1] == shown
    write_toy_evaluation(RunWriter(fresh.root / "one"))
    assert evaluation.signs(fresh, "one", "train-cfg2")[1] != shown


def test_commands_quote_the_folder_that_is_served(tmp_path):
    root = tmp_path / "my runs"
    shelf = RunShelf(root)
    assert f"'train.out={root}'" in compare.curves_of(shelf, [], "reward", 0, "step")["notice"][2]
    write_toy_run(root / "one", evaluation=False)
    hint = evaluation.update(shelf, "one")[0]["notice"][2]
    assert hint.startswith(f"t2i-credit evaluate '{root}/one'")
