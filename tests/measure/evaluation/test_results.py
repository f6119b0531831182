"""Results in GenEval's own format, anybody's: summed up, compared, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.errors import UserError
from t2i_credit.measure.evaluation.command import evaluate_named
from t2i_credit.measure.evaluation.results import load_results
from t2i_credit.measure.evaluation.scores import load_evaluation

# cat: 1 of 2 right, dog: 2 of 2, two cats: 0 of 1; in the order of a folder's listing, which is none
VERDICTS = [("dog", 1), ("cat", 0), ("two cats", 0), ("dog", 1), ("cat", 1)]


def line(prompt: str, correct: Any, **changed: Any) -> str:
    """A line as GenEval's evaluate_images.py writes it."""
    tag = "counting" if " " in prompt else "single_object"
    name = prompt.split()[-1].rstrip("s")
    record = {"tag": tag, "include": [{"class": name, "count": 1}], "prompt": prompt}
    found = {
        "filename": f"outputs/00003/samples/{prompt}.png",
        "tag": tag,
        "prompt": prompt,
        "correct": correct,
        "reason": "" if correct else f"expected {name}>=1, found 0",
        "metadata": json.dumps(record),
        "details": json.dumps({name: [[1.5, 2.0, 30.0, 40.0, 0.98]]}),
        **changed,
    }
    return json.dumps({key: value for key, value in found.items() if value is not ...}) + "\n"


def write(path: Path, verdicts: Any = VERDICTS) -> Path:
    path.write_text("".join(line(prompt, bool(right)) for prompt, right in verdicts))
    return path


def summed_up(results: Path, against: str | None = None, **more: Any) -> Any:
    return evaluate_named(None, None, against, results=results, split="train", per_task=1, **more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_results_are_summed_up_by_task_over_prompts_of_one_record(tmp_path: Path) -> None:
    report = summed_up(write(tmp_path / "results.jsonl"))
    found = report.evaluation.summary()
    # single_object (1/2 + 2/2) / 2, counting 0, overall the mean of both
    assert {task: row["correct"] for task, row in found.items()} == {
        "single_object": 0.75,
        "counting": 0.0,
        "overall": 0.375,
    }
    assert found["single_object"]["low"] < 0.75 < found["single_object"]["high"]
    row = found["single_object"]
    assert (row["pass_at_k"], row["prompts"], row["images"]) == (1.0, 2, 4)
    assert row["partial"] is None and report.evaluation.images_each() == "1 to 2"
    assert report.path == Path("evaluations/results-summary.json")
    assert load_evaluation(report.path) == report.evaluation
    page = report.page.read_text()
    assert "0.375" in page and "expected cat&gt;=1, found 0" in page and report.warnings == []


def test_results_are_compared_prompt_by_prompt_whatever_their_order(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a.jsonl"), tmp_path / "b.jsonl"
    write(after, [("cat", 1), ("cat", 1), ("dog", 1), ("dog", 0), ("two cats", 1)])
    told: list[str] = []
    report = summed_up(after, str(before), warn=told.append)
    # cat 1/2 -> 1, dog 1 -> 1/2: no change of their mean; two cats 0 -> 1
    changes = {task: row["change"] for task, row in report.changes.items()}
    assert changes == {"single_object": 0.0, "counting": 1.0, "overall": 0.5}
    assert told == ["nobody knows how either was judged: taken to be alike"]
    # and with the file that was just written
    again = summed_up(before, str(report.path), out=Path("again"))
    assert again.changes["overall"]["change"] == -0.5
    write(after, VERDICTS[:3])
    with pytest.raises(UserError, match="cannot be paired"):
        summed_up(after, str(before), out=Path("new"))
    assert not Path("new").exists()


def test_metadata_may_be_an_object_and_what_the_judge_does_not_read_is_no_other_prompt(
    tmp_path: Path,
) -> None:
    record = {"tag": "single_object", "include": [], "prompt": "cat"}
    lines = [line("cat", 1, metadata={**record, "seed": n, "exclude": []}) for n in (0, 1)]
    (tmp_path / "r.jsonl").write_text("\ufeff" + "".join(lines) + "\n")
    assert load_results(tmp_path / "r.jsonl").summary()["overall"]["prompts"] == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", r"r\.jsonl: holds no result"),
        ("[]", r"r\.jsonl:2: must be a JSON object, got \[\]"),
        ('{"tag"', r"r\.jsonl:2: is not JSON"),
        (line("cat", ...), r"r\.jsonl:2: key 'correct' is missing; GenEval's results have tag, "),
        (line("cat", "yes"), r"r\.jsonl:2: correct must be true or false, got 'yes'"),
        (line("cat", 1, tag=3), r"r\.jsonl:2: tag must be a text, not empty, not 'overall'; got 3"),
        (line("cat", 1, tag="colors"), "tag is 'colors', that of its metadata 'single_object'"),
        (line("cat", 1, metadata="{"), r"r\.jsonl:2: metadata: is not JSON"),
        (line("cat", 1, metadata=[1]), r"r\.jsonl:2: metadata: must be a JSON object, got \[1\]"),
        (line("cat", 1, details='{"cat": [[1, 2]]}'), r"details must be \{class: \[\[x0, y0, x1"),
    ],
)
def test_a_damaged_line_is_refused_with_its_number(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text((line("cat", 1) if text else "") + text)
    with pytest.raises(UserError, match=named) as caught:
        summed_up(path)
    assert "\n" not in str(caught.value) and not Path("evaluations").exists()


def test_what_does_not_go_with_results_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"detector": "shapes"}, "detector: decides how images are judged, and .* holds verdicts"),
        ({"source": "set.jsonl"}, "prompts: decides"),
        ({"against": "shapes"}, r"--against shapes: of results, a \.json or \.jsonl is allowed"),
    ]
    for given, named in cases:
        with pytest.raises(UserError, match=named):
            summed_up(path, given.pop("against", None), **given)
    with pytest.raises(UserError, match="gone: no such file"):
        summed_up(tmp_path / "gone")
    with pytest.raises(UserError, match="give one of them"):
        evaluate_named("shapes", None, None, results=path, split="train", per_task=1)
