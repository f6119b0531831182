"""Files of an evaluation: what is saved is read back, and damaged ones are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from painter import PROMPTS, PROTOCOL, Painter

from t2i_credit.errors import RunError
from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.scores import Evaluation, load_evaluation, paired
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter
from t2i_credit.worlds.shapes.detector import detect


def test_json_and_back_is_the_same_evaluation(evaluation: Evaluation) -> None:
    value = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    records = json.loads(json.dumps(evaluation.records, allow_nan=False))
    back = Evaluation.from_json(value, records)
    assert back == evaluation
    assert back.summary() == evaluation.summary() == value["summary"]


def test_a_saved_evaluation_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    path = evaluation.save(tmp_path / "deep" / "er", "base.v1")
    assert path == tmp_path / "deep" / "er" / "base.v1.json"
    assert sorted(p.name for p in path.parent.iterdir()) == ["base.v1.json", "base.v1.jsonl"]
    assert load_evaluation(path) == evaluation
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == evaluation.records
    assert paired(load_evaluation(path), evaluation)["overall"]["change"] == 0.0


def test_an_evaluation_in_a_run_folder_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config={}, environment={}, total=1) as run:
        path = run.write_evaluation("base", evaluation.to_json(), evaluation.records)
    assert load_evaluation(path) == evaluation
    reader = RunReader(tmp_path / "run")
    assert reader.evaluation("base")["summary"] == evaluation.summary()
    assert reader.evaluation_images("base") == evaluation.records


def test_an_evaluation_of_single_images_has_no_disagreement(
    painter: Painter, tmp_path: Path
) -> None:
    found = evaluate(painter, PROMPTS[:2], detect, replace(PROTOCOL, images_per_prompt=1))
    scores = found.summary()["overall"]
    assert scores["disagreement"] is None
    assert scores["pass_at_k"] == scores["correct"]
    assert load_evaluation(found.save(tmp_path, "single")) == found


def test_texts_with_strange_line_ends_survive(painter: Painter, tmp_path: Path) -> None:
    prompt = replace(PROMPTS[0], text="a circle\u2028or\na ring, schön", negative="\u2029")
    found = evaluate(painter, [prompt], detect, PROTOCOL)
    assert load_evaluation(found.save(tmp_path, "strange")) == found


def test_saving_again_replaces_and_a_half_replaced_evaluation_is_refused(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    path = evaluation.save(tmp_path, "base")
    other = replace(evaluation, records=[{**r, "correct": True} for r in evaluation.records])
    assert load_evaluation(other.save(tmp_path, "base")) == other
    lines = "".join(json.dumps(record) + "\n" for record in evaluation.records)
    path.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(RunError, match="lines per image belong to another evaluation"):
        load_evaluation(path)


def test_an_evaluation_that_cannot_be_written_says_so_in_the_name_of_its_file(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: cannot be written"):
        evaluation.save(tmp_path / "file", "base")
    (tmp_path / "base.json").mkdir()
    with pytest.raises(RunError, match=r"base\.json: cannot be written"):
        evaluation.save(tmp_path, "base")
    assert not list(tmp_path.glob(".*"))  # nothing half written
    for name in ("", ".hidden", "a/b", ".."):
        with pytest.raises(RunError, match="evaluation name"):
            evaluation.save(tmp_path, name)


def damaged(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda p: p.unlink(), r"base\.json: no such file"),
        (lambda p: p.with_suffix(".jsonl").unlink(), r"base\.jsonl: no such file"),
        (lambda p: p.write_text("{"), r"base\.json: damaged, not JSON"),
        (lambda p: p.write_bytes(b"\xff"), r"base\.json: cannot be read: not a text"),
        (lambda p: p.write_text("[]"), r"base\.json: holds a list, not an object"),
        (lambda p: p.write_text("{}"), "'format' is missing"),
        (lambda p: damaged(p, format=2), "format 2; this version reads 1"),
        (lambda p: damaged(p, protocol={"cfg_scale": 0}), "cfg_scale: 0; allowed is"),
        (lambda p: damaged(p, protocol={"guidance": 1}), "guidance"),
        (lambda p: damaged(p, protocol=3), "not a readable evaluation"),
        (lambda p: damaged(p, prompts=[]), "36 images, its prompts are 0"),
        (lambda p: damaged(p, prompts=[1]), "not a readable evaluation"),
        (
            lambda p: p.with_suffix(".jsonl").write_text('{"tag": 1}\n{"ta'),
            r"base\.jsonl, line 2: damaged",
        ),
        (lambda p: p.with_suffix(".jsonl").write_text(""), "belong to another evaluation"),
    ],
)
def test_a_damaged_evaluation_is_refused_in_one_line(
    evaluation: Evaluation, tmp_path: Path, damage: Callable[[Path], Any], named: str
) -> None:
    path = evaluation.save(tmp_path, "base")
    damage(path)
    with pytest.raises(RunError, match=named) as caught:
        load_evaluation(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_whose_prompts_repeat_is_read_with_each_prompt_once(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    # as older versions wrote a list in which a record stands twice: a prompt for each line
    half = evaluation.records[: 6 * PROTOCOL.images_per_prompt]
    lines = half + [{**r, "prompt_index": r["prompt_index"] + 6} for r in half]
    old = Evaluation(PROTOCOL, [None] * 12, evaluation.disagreement[:6] * 2, lines)
    found = load_evaluation(old.save(tmp_path, "old"))
    once = Evaluation(PROTOCOL, [None] * 6, evaluation.disagreement[:6], half).summary()
    for task, row in found.summary().items():
        assert {**row, "images": row["images"] // 2} == once[task]
    assert load_evaluation(found.save(tmp_path, "new")) == found


def test_only_the_json_file_names_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"base\.jsonl: not an evaluation; its file ends in \.json"):
        load_evaluation(tmp_path / "base.jsonl")
