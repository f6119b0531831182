"""Evaluation of language models by name: exact answers, intervals, pairs, and runs as models."""

import json

import pytest
from tiny_text import TAUGHT, taught_model
from typer.testing import CliRunner

from t2i_credit.cli.commands import app
from t2i_credit.errors import RunError, UserError
from t2i_credit.measure.evaluation.text import TextProtocol, evaluate_text_model, paired
from t2i_credit.models.text_model import build_text_model, build_tokenizer
from t2i_credit.run_folder.checkpoint import load_checkpoint, save_checkpoint
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter
from t2i_credit.text.models import is_text_model, load_text

PROTOCOL = TextProtocol(problems=6, answers=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on text with two checkpoints: random weights, and a model that was taught."""
    path = tmp_path_factory.mktemp("runs") / "run"
    taught, tokenizer = taught_model()
    config = {"model": {"name": "arithmetic"}, "grpo": {}}
    with RunWriter.create(path, config=config, environment={}, total=2) as writer:
        blank = build_text_model(tokenizer, hidden_size=32, layers=1, heads=2)
        for step, model in ((1, blank), (2, taught)):

            def write(folder, model=model):
                model.save_pretrained(folder)
                build_tokenizer().save_pretrained(folder)

            save_checkpoint(writer.checkpoints, step, model_state=write)
    return path


def test_a_run_on_text_is_a_model_at_its_newest_checkpoint_or_the_one_asked_for(run):
    assert is_text_model(str(run)) and is_text_model(f"{run}@1")
    newest, second, first = (load_text(str(run) + at)[0].lm_head.weight for at in ("", "@2", "@1"))
    assert newest.equal(second) and not newest.equal(first)
    with pytest.raises(RunError, match="no checkpoint of step 3; there are"):
        load_text(f"{run}@3")


def test_an_evaluation_counts_exact_answers_and_is_kept_in_the_run(run):
    found, path = evaluate_text_model(str(run), PROTOCOL)
    assert path == run / "evaluations" / "train-6x2-t1-seed0.json"
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(found))
    lines = RunReader(run).evaluation_images("train-6x2-t1-seed0")
    assert len(lines) == 12 and list(found["summary"])[-1] == "overall"
    overall = found["summary"]["overall"]
    assert overall["correct"] == sum(line["correct"] for line in lines) / 12
    assert (overall["prompts"], overall["answers"]) == (6, 12)
    counts = [row["prompts"] for task, row in found["summary"].items() if task != "overall"]
    assert sum(counts) == 6
    assert evaluate_text_model(str(run), PROTOCOL)[0]["summary"] == found["summary"]


def test_held_out_problems_and_those_of_another_seed_are_others(run, tmp_path):
    asked = []
    for settings in ({}, {"split": "heldout"}, {"seed": 1}):
        protocol = TextProtocol(problems=6, answers=1, **settings)
        _, path = evaluate_text_model(str(run), protocol, out=tmp_path)
        lines = path.with_suffix(".jsonl").read_text("utf-8").splitlines()
        asked.append({json.loads(line)["prompt"] for line in lines})
    assert not asked[0] & asked[1] and asked[0] != asked[2]


def test_a_pair_is_compared_problem_by_problem():
    def records(*right):
        prompts = [*TAUGHT, "1+2+3+4:"]  # of two steps, of one, of three
        rows = zip(prompts, right, strict=True)
        return [{"prompt": p, "correct": c} for p, both in rows for c in both]

    before = records((True, False), (False, False), (True, True))
    after = records((True, True), (False, True), (True, True))
    found = paired(before, after)
    changes = {task: (row["before"], row["after"], row["change"]) for task, row in found.items()}
    assert changes == {
        "1 steps": (0.0, 0.5, 0.5),
        "2 steps": (0.5, 1.0, 0.5),
        "3 steps": (1.0, 1.0, 0.0),
        "overall": (0.5, pytest.approx(2.5 / 3), pytest.approx(1 / 3)),
    }
    assert found["overall"]["low"] < 0 < 1 / 3 < found["overall"]["high"] <= 1  # of three problems


def test_the_verb_prints_before_and_after(run):
    words = ["evaluate", str(run), "--against", f"{run}@1", "--per-task", "4", "--per-prompt", "2"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0 and "before" in done.output and "4 steps" in done.output
    saved = RunReader(run).evaluation("train-4x2-t1-seed0")
    assert saved["against"] == {"model": f"{run}@1", **saved["against"]}
    assert set(saved["paired"]["overall"]) == {"before", "after", "change", "low", "high"}


def test_the_credit_of_a_run_is_measured_at_the_step_asked_for(run, tmp_path):
    taught = load_checkpoint(run / "checkpoints", 2).model_folder
    found = []
    for model in (str(run), f"{run}@2", str(taught), f"{run}@1"):
        out = tmp_path / str(len(found))
        words = ["truth", model, "--prompts", "2", "--images", "2", "--out", str(out)]
        done = CliRunner().invoke(
            app, [*words, "--credit", "guidance_contrast"], catch_exceptions=False
        )
        assert done.exit_code == 0 and "AUROC" in done.output
        saved = json.loads((out / "truth.json").read_text("utf-8"))
        assert saved.pop("model") == model
        found.append(json.dumps(saved))  # as text, for a nan differs from itself
    newest, second, folder, first = found
    assert newest == second == folder != first


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cfg-scale", "2"], "--cfg-scale: for images alone"),
        (["--detector", "shapes"], "--detector: for images alone"),
        (["--split", "test"], "--split: 'test' is not allowed; train or heldout"),
        (["--temperature", "-1"], "--temperature: -1.0 is not allowed"),
        (["--against", "nowhere"], "no folder with a config.json"),
    ],
)
def test_what_makes_no_sense_for_text_is_refused_in_one_line(run, words, told):
    with pytest.raises(UserError, match=told) as caught:
        CliRunner().invoke(
            app, ["evaluate", str(run), "--per-task", "2", *words], catch_exceptions=False
        )
    assert "\n" not in str(caught.value)
