"""Generated prompt sets: the official list's own form, seeds, and what is kept away from."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.errors import PromptError
from t2i_credit.interfaces import Prompt
from t2i_credit.prompts import generate as made
from t2i_credit.prompts.files import load_prompts
from t2i_credit.prompts.generate import Words, composition, generate, write_prompt_file
from t2i_credit.prompts.records import COCO_NAMES, TASKS, validate_spec

FEW = Words(names=("apple", "bus", "cat"), colors=("red", "orange"), relations=("left of", "above"))


def again(record: dict[str, Any]) -> dict[str, Any]:
    """The record that the builder of its task makes of its parts."""
    first, second = record["include"][0], record["include"][-1]
    if record["tag"] == "position":
        return made.position(second["class"], second["position"][0], first["class"])
    parts = {
        "single_object": [first["class"]],
        "two_object": [first["class"], second["class"]],
        "counting": [first["class"], first["count"]],
        "colors": [first.get("color"), first["class"]],
        "color_attr": [first.get("color"), first["class"], second.get("color"), second["class"]],
    }[record["tag"]]
    return getattr(made, record["tag"])(*parts)


def test_every_official_line_is_made_letter_by_letter_of_its_own_parts(
    geneval_records: list[dict[str, Any]],
) -> None:
    assert len(geneval_records) == 553
    for record in geneval_records:
        assert json.dumps(again(record)) == json.dumps(record)


def test_the_official_list_names_these_objects_and_colours_and_no_others(
    geneval_records: list[dict[str, Any]],
) -> None:
    clauses = [clause for record in geneval_records for clause in record["include"]]
    assert {clause["class"] for clause in clauses} == set(COCO_NAMES)
    assert {clause["color"] for clause in clauses if "color" in clause} == set(made.COLORS)
    colored = {clause["class"] for clause in clauses if "color" in clause}
    assert "person" not in colored


def test_articles_and_plurals_are_those_of_the_official_list() -> None:
    # lines of the official list
    assert made.color_attr("orange", "bus", "red", "oven")["prompt"] == (
        "a photo of an orange bus and a red oven"
    )
    assert made.two_object("toaster", "oven")["prompt"] == "a photo of a toaster and an oven"
    assert made.counting("bench", 4)["prompt"] == "a photo of four benchs"
    assert made.counting("bus", 3) == {
        "tag": "counting",
        "include": [{"class": "bus", "count": 3}],
        "exclude": [{"class": "bus", "count": 4}],
        "prompt": "a photo of three buses",
    }
    assert made.position("dog", "right of", "teddy bear")["include"] == [
        {"class": "teddy bear", "count": 1},
        {"class": "dog", "count": 1, "position": ["right of", 0]},
    ]


def test_a_set_holds_every_task_equally_often_and_no_prompt_twice() -> None:
    records = generate(60, seed=3)
    assert Counter(record["tag"] for record in records) == dict.fromkeys(TASKS, 60)
    assert len({record["prompt"] for record in records}) == 360
    assert len({composition(record) for record in records}) == 360
    for record in records:
        validate_spec(record, classes=COCO_NAMES)
    counts = {r["include"][0]["count"] for r in records if r["tag"] == "counting"}
    assert counts == {2, 3, 4}
    colored = [c for r in records for c in r["include"] if "color" in c]
    assert all(clause["class"] != "person" for clause in colored)
    for record in records:
        if record["tag"] == "color_attr":
            assert record["include"][0]["color"] != record["include"][1]["color"]


def test_the_same_seed_gives_the_same_set_and_another_one_another() -> None:
    assert generate(20, seed=1) == generate(20, seed=1)
    assert generate(20, seed=1) != generate(20, seed=2)
    alone = generate(20, seed=1, tasks=["position"])
    assert alone == [r for r in generate(20, seed=1) if r["tag"] == "position"]


def test_a_small_vocabulary_is_used_up_and_no_more_is_made_up() -> None:
    # 3 names, 2 colours, 2 relations: 3 singles; 3 unordered pairs; 3 x 3 counts; 2 x 3 colours; 6 ordered pairs x 2
    # relations (no two mirrored: neither right of nor below is among them); 3 pairs x 2 ways to colour them
    found = Counter(record["tag"] for record in generate(1000, words=FEW))
    assert found == {
        "single_object": 3,
        "two_object": 3,
        "counting": 9,
        "colors": 6,
        "position": 12,
        "color_attr": 6,
    }
    one = Words(names=("apple",), colors=("red",))
    assert Counter(record["tag"] for record in generate(9, words=one)) == {
        "single_object": 1,
        "counting": 3,
        "colors": 1,
    }


def test_a_composition_is_the_same_however_it_is_put() -> None:
    assert composition(made.two_object("a", "b")) == composition(made.two_object("b", "a"))
    left, right = made.position("a", "left of", "b"), made.position("b", "right of", "a")
    assert composition(left) == composition(right)
    assert composition(left) != composition(made.position("b", "left of", "a"))
    assert composition(made.color_attr("red", "a", "blue", "b")) == composition(
        made.color_attr("blue", "b", "red", "a")
    )
    assert composition(made.color_attr("red", "a", "blue", "b")) != composition(
        made.color_attr("blue", "a", "red", "b")
    )


def test_what_is_to_be_avoided_is_avoided_by_text_and_by_composition() -> None:
    everything = generate(1000, words=FEW)
    avoided = everything[::2]
    rest = generate(
        1000, words=FEW, not_in=[Prompt(text=f"other words {i}", spec=r) for i, r in enumerate(avoided)]
    )  # fmt: skip
    expected = {composition(r) for r in everything} - {composition(r) for r in avoided}
    assert {composition(r) for r in rest} == expected
    texts = generate(1000, words=FEW, not_in=[Prompt(text=r["prompt"]) for r in avoided])
    assert not {r["prompt"] for r in texts} & {r["prompt"] for r in avoided}
    # every colours prompt whose own text is not avoided is still there
    kept = {r["prompt"] for r in everything[1::2] if r["tag"] == "colors"}
    assert kept == {r["prompt"] for r in texts if r["tag"] == "colors"}


def test_training_prompts_keep_away_from_the_official_list(
    geneval_records: list[dict[str, Any]],
) -> None:
    official = [Prompt(text=r["prompt"], spec=r) for r in geneval_records]
    found = generate(200, seed=7, not_in=official)
    assert not {r["prompt"] for r in found} & {p.text for p in official}
    # the official list holds all 80 single objects, and 80 of the 240 counting prompts
    counts = Counter(record["tag"] for record in found)
    assert counts["single_object"] == 0
    assert counts["counting"] == 160
    assert counts["two_object"] == counts["color_attr"] == 200


def test_a_prompt_file_is_official_records_that_load_again(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("apple\n\n  bus \ncat\n", encoding="utf-8")
    first = tmp_path / "train.jsonl"
    held = write_prompt_file(first, per_task=4, names=names, colors=["red", "orange"])
    assert held == {**dict.fromkeys(TASKS, 4), "single_object": 3, "two_object": 3}
    prompts = load_prompts(first, classes=["apple", "bus", "cat"])
    assert [json.loads(line) for line in first.read_text().splitlines()] == [
        dict(p.spec or {}) for p in prompts
    ]
    second = tmp_path / "test.jsonl"
    write_prompt_file(second, per_task=9, seed=1, names=names, not_in=[str(first)])
    assert not {p.text for p in load_prompts(second)} & {p.text for p in prompts}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"names": Path("gone.txt")}, r"gone\.txt: cannot be read"),
        ({"colors": ["red", "red"]}, "colors: 'red' is given 2 times"),
        ({"colors": ["red", " "]}, "colors: ' ' is not a word"),
        ({"relations": ["inside"]}, "relations: 'inside' is not allowed; allowed are left of"),
        ({"tasks": ["color"]}, "tasks: 'color' is not allowed; allowed are single_object"),
        ({"per_task": 0}, "at least 1"),
        ({"seed": -1}, "at least 1 and 0"),
        ({"not_in": ["gone.jsonl"]}, r"gone\.jsonl: no such prompt file"),
        ({"tasks": ["colors"], "colors": []}, "no prompt is left"),
    ],
)
def test_wrong_words_are_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PromptError, match=named) as caught:
        write_prompt_file(Path("out.jsonl"), **{"per_task": 2, **settings})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_written_over_one_that_it_is_made_from(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_prompt_file(path, per_task=1)
    with pytest.raises(PromptError, match="is also read from"):
        write_prompt_file(path, per_task=1, not_in=[str(path)])
