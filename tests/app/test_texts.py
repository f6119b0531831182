"""The app on runs on text, without a browser: the numbers are those of samples.json, pictures and text live in one folder,
whatever is damaged is one line."""

from __future__ import annotations

import base64
import csv
import io
import json

import numpy as np
import pytest
from app_toys import (
    ANSWER,
    LISTS,
    PROMPT,
    G,
    compared,
    floats,
    notice_of,
    text_sample,
    write_text_run,
    write_toy_run,
)

from t2i_credit.app import charts, credit_maps, evaluation, studio, training
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A run on text beside one on images."""
    root = tmp_path_factory.mktemp("shelf")
    write_toy_run(root / "pictures")
    write_text_run(root / "text")
    return RunShelf(root)


@pytest.fixture
def fresh(tmp_path):
    write_text_run(tmp_path / "text")
    return RunShelf(tmp_path)


def damage(shelf, change, step=9):
    """Rewrites a step's samples.json; `change` gets its samples."""
    path = shelf.root / f"text/steps/{step:06d}/samples.json"
    header = json.loads(path.read_text())
    change(header["samples"])
    path.write_text(json.dumps(header))


# ---- what is shown


def test_the_browser_gets_the_numbers_of_samples_json(shelf):
    group = credit_maps.show(shelf, "text", {"step": 5})["group"]
    kept = RunReader(shelf.root / "text").samples(5)
    assert group["text"] and group["step"] == 5
    assert [s["reward"] for s in group["samples"]] == [3.0, 2.0, 1.0, 0.0]  # best first
    for sample in group["samples"]:
        for name in LISTS:
            assert floats(sample["arrays"][name]).tolist() == kept[sample["place"]][name], name


def test_a_group_has_one_scale_and_it_is_that_of_pictures(shelf):
    group = credit_maps.show(shelf, "text", {"prompt": "2+3:"})["group"]
    kept = RunReader(shelf.root / "text").samples(9)[:G]
    assert group["prompt"] == "2+3:" and group["negative"] == "2+3, answer wrongly:"
    assert group["scale"]["credit"] == 2.0  # no weight is above 1.1, and it never ends below 2
    highest = max(abs(v) for sample in kept for v in sample["token_advantages"])
    assert 0 < group["scale"]["advantage"] <= highest


def test_a_choice_of_step_and_prompt_is_followed(shelf):
    value = credit_maps.show(shelf, "text", {"step": 1, "prompt": "7*8:"})
    assert value["steps"] == [1, 5, 9] and [p["prompt"] for p in value["prompts"]] == [
        "2+3:",
        "7*8:",
    ]
    assert value["group"]["prompt"] == "7*8:" and value["group"]["number"] == 1


def test_spaces_and_line_ends_of_tokens_can_be_seen(shelf):
    sample = credit_maps.show(shelf, "text", {})["group"]["samples"][0]
    assert sample["pills"] == ["·", "2", "+", "3", "=", "5", "↵", "#", "5", "<eos>"]
    assert sample["quoted"][6] == r"'\n'"


def test_training_shows_the_newest_group_best_answer_first(shelf):
    strip, curves = training.numbers(shelf, "text")
    newest = training.newest(shelf, "text")
    group = newest["groups"][0]
    assert newest["map"] == "token_advantages" and group["text"] and "step 9" in group["says"]
    assert [sample["reward"] for sample in group["samples"]] == [3.0, 2.0, 1.0, 0.0]
    assert "Answer length" in strip and "Throughput" not in strip
    titles = [figure["title"] for figure in curves["figures"]]
    assert titles == ["Reward", "Answer length", "Cut-off answers", "Entropy", "Signed contrast"]


def test_an_unchanged_run_has_the_same_signs_and_a_new_record_another(fresh):
    seen = training.signs(fresh, "text")
    assert training.signs(fresh, "text") == seen
    samples = [text_sample(place, ANSWER) for place in range(G)]
    RunWriter(fresh.root / "text").write_text_step(10, samples, group_size=G)
    assert [a == b for a, b in zip(training.signs(fresh, "text"), seen, strict=True)] == [
        True,
        False,
        True,
    ]


def test_a_flat_group_is_coloured_by_its_credit(fresh):
    alike = [text_sample(place, ANSWER) for place in range(G)]
    for sample in alike:
        sample |= {"reward": 1.0, "advantage": 0.0, "token_advantages": [0.0] * len(ANSWER)}
    RunWriter(fresh.root / "text").write_text_step(10, alike, group_size=G)
    newest = training.newest_group(RunReader(fresh.root / "text"), [10])
    assert newest["map"] == "credit" and "nothing is pushed" in newest["groups"][0]["says"]


def test_the_charts_speak_of_answers_where_there_are_any():
    said = charts.reward_figure([{"step": 1, "reward": 0.5}], "answers")["says"]
    assert said == "mean of the step's answers"  # no band: trl logs no spread


def test_the_table_holds_every_token_of_the_group_exactly(shelf):
    made = credit_maps.save(shelf, {"run": "text", "kind": "csv", "step": 5, "prompt": "7*8:"})
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    assert made["name"] == "text-step5-7-8.csv" and len(rows) == G * len(ANSWER)
    apart = [float(row["logprobs"]) - float(row["negative_logprobs"]) for row in rows]
    np.testing.assert_allclose([float(row["signed_contrast"]) for row in rows], apart, atol=1e-6)
    assert {row["negative_kind"] for row in rows} == {"text"}
    assert [row["text"] for row in rows[: len(ANSWER)]][:4] == [" ", "2", "'+", "3"]  # no formula
    kept = RunReader(shelf.root / "text").samples(5)
    for row in rows:
        for name in LISTS:
            assert float(row[name]) == kept[int(row["sample"])][name][int(row["token"])]


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_no_picture_of_text_can_be_downloaded(shelf, kind):
    assert "csv can" in credit_maps.save(shelf, {"run": "text", "kind": kind})["error"]


# ---- text that would be more than text


def test_what_is_no_visible_character_stands_there_as_its_escape(fresh):
    def spoil(samples):
        for sample in samples:
            sample["prompt"] = "<script>\x07</script>\u202e\ud800\nnext line"
            sample["tokens"] = ["\x00\x1b", "\u202e", "\ud800", "<script>", "", *ANSWER[5:]]

    damage(fresh, spoil)
    value = credit_maps.show(fresh, "text", {})
    said = r"<script>\x07</script>\u202e\ud800" + "\nnext line"
    assert value["group"]["prompt"] == value["prompts"][0]["prompt"] == said
    pills = value["group"]["samples"][0]["pills"]
    assert pills[:5] == [r"\x00\x1b", r"\u202e", r"\ud800", "<script>", "∅"]
    json.dumps(value, ensure_ascii=False).encode()  # can be sent
    table = credit_maps.save(fresh, {"run": "text", "kind": "csv"})
    assert r"\ud800" in base64.b64decode(table["data"]).decode()


def test_messages_are_shown_with_their_roles(tmp_path):
    talk = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+3?"}]
    write_text_run(tmp_path / "text", prompt=talk, answers=(ANSWER,) * G, negative=None)
    value = credit_maps.show(RunShelf(tmp_path), "text", {})
    assert value["group"]["prompt"] == "system: Be short.\nuser: 2+3?"
    assert value["group"]["negative"] is None


# ---- damage


def spoil_length(samples):
    samples[3]["credit"].pop()


def spoil_number(samples):
    samples[0]["logprobs"][0] = "<b>much</b>"


def spoil_tokens(samples):
    samples[0]["tokens"] = "2+3"


def spoil_list(samples):
    del samples[1]["negative_logprobs"]


def spoil_key(samples):
    del samples[2]["advantage"]


def spoil_reward(samples):
    samples[0]["reward"] = "much"


def spoil_prompt(samples):
    samples[0]["prompt"] = [{"says": "?"}]


def spoil_sample(samples):
    samples[0] = 3


@pytest.mark.parametrize(
    "change",
    [
        spoil_length,
        spoil_number,
        spoil_tokens,
        spoil_list,
        spoil_key,
        spoil_reward,
        spoil_prompt,
        spoil_sample,
        list.clear,
    ],
)
def test_a_damaged_step_is_one_line_and_the_one_before_is_shown(fresh, change):
    damage(fresh, change)
    said = notice_of(credit_maps.show(fresh, "text", {"step": 9}))
    assert "steps/000009" in said and "\n" not in said
    assert "step 5" in training.newest(fresh, "text")["groups"][0]["says"]
    assert credit_maps.save(fresh, {"run": "text", "kind": "csv"})["error"]


@pytest.mark.parametrize("text", ["", "[]", '{"text": true', '{"text": true, "samples": {}}'])
def test_half_a_file_is_one_line(fresh, text):
    (fresh.root / "text/steps/000009/samples.json").write_text(text)
    assert "samples.json" in notice_of(credit_maps.show(fresh, "text", {"step": 9}))


def test_numbers_that_were_not_finite_are_gaps(fresh):
    def gaps(samples):
        samples[0]["entropy"][1] = samples[0]["reward"] = None
        samples[1]["token_advantages"] = [None] * len(ANSWER)

    damage(fresh, gaps)
    group = credit_maps.show(fresh, "text", {"prompt": "2+3:"})["group"]
    first = next(sample for sample in group["samples"] if sample["place"] == 0)
    assert np.isnan(floats(first["arrays"]["entropy"])).tolist()[:3] == [False, True, False]
    assert first["reward"] is None and np.isfinite(group["scale"]["advantage"])


def test_an_answer_none_of_whose_tokens_counts_is_shown_empty(tmp_path):
    write_text_run(tmp_path / "text", answers=([],) * G)
    samples = credit_maps.show(RunShelf(tmp_path), "text", {})["group"]["samples"]
    assert [sample["pills"] for sample in samples] == [[]] * G


def test_a_run_that_has_just_begun_says_what_will_come(tmp_path):
    RunWriter.create(tmp_path / "new", config={"grpo": {}}, environment={}, total=9)
    shelf = RunShelf(tmp_path)
    assert "group of answers" in notice_of(training.newest(shelf, "new"))
    assert "No step recorded yet" in notice_of(credit_maps.show(shelf, "new", {}))


# ---- the other tabs


def test_runs_of_both_kinds_are_compared_by_their_curves_and_those_on_images_by_pictures(shelf):
    both = ["pictures", "text"]
    curves, prompts, pictures = compared(shelf, both)
    assert {trace["name"] for trace in curves["figures"][0]["data"]} == set(both)
    assert PROMPT in dict(prompts.choices) and "2+3:" not in dict(prompts.choices)
    assert pictures["groups"][0]["prompt"] == "pictures"
    assert len(pictures["groups"]) == 1


def test_runs_on_text_alone_have_curves_and_one_line(shelf):
    curves, _, pictures = compared(shelf, ["text"], "answer_length")
    assert curves["figures"][0]["data"] and "No picture" in notice_of(pictures)


def test_the_evaluation_tab_says_how_a_run_on_text_is_evaluated(shelf):
    said = notice_of(evaluation.update(shelf, "text", None)[0])
    assert "t2i-credit evaluate" in said and "--against arithmetic" in said


def test_the_playground_offers_no_model_of_text(shelf):
    (shelf.root / "text/checkpoints/000009").mkdir(parents=True)
    here = studio.Studio(shelf)
    assert [name for _, name in here.choices()] == ["shapes"]
    take = studio.Take("text@9", "a ring", None, "")
    *_, last = here.sample([take], studio.Settings(2.0, 1.0, 0, 1), studio.threading.Event())
    assert last.failed and "draws no image" in last.says
