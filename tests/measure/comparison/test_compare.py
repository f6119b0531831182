"""Comparisons: what cannot be compared, a comparison killed and taken up again, and its numbers."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from comparisons import EVALUATION, finished, recipes

from t2i_credit import api
from t2i_credit.cli.commands import main
from t2i_credit.cli.worker import finish
from t2i_credit.config.schema import to_yaml
from t2i_credit.errors import ConfigError, RunError, UserError
from t2i_credit.measure.comparison.command import baseline_of, compare_runs, plan_rows, runs_of
from t2i_credit.measure.comparison.plots import draw
from t2i_credit.measure.comparison.results import markdown, results
from t2i_credit.measure.comparison.runs import check_runs, plan_runs
from t2i_credit.measure.intervals import NO_DIFFERENCE
from t2i_credit.run_folder.writer import RunWriter

# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"steps": 3}}, "train.steps is 2 in .*grpo.yaml and 3 in .*late.yaml"),
        ({"prompts": {"per_step": 3}}, "prompts.per_step is 2 in .* and 3 in"),
        ({"prompts": {"negative": "blue"}}, "prompts.negative is None in .* and 'blue' in"),
        ({"rollout": {"group_size": 2}}, "rollout.group_size is 4 in .* and 2 in"),
        ({"model": {"name": "other"}}, "model.name is '.*model' in .* and 'other' in"),
        ({"reward": {"geneval": {}}}, "reward is .*bright.* in .* and .*geneval"),
        ({"tune": {"lora_rank": 2}}, "tune.lora_rank is 0 in .* and 2 in"),
        ({"loss": {"updates_per_rollout": 2}}, "loss.updates_per_rollout is 1 in .* and 2 in"),
    ],
)
def test_recipes_that_differ_in_model_prompts_reward_or_budget_are_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^compare: {told}") as error:
        plan_runs(recipes(tmp_path, **changes), [0, 1], tmp_path / "out")
    assert "\n" not in str(error.value)


def test_an_override_can_make_recipes_comparable(tmp_path: Path) -> None:
    files = recipes(tmp_path, train={"steps": 3})
    runs = plan_runs(files, [0, 1], tmp_path / "out", overrides=["train.steps=4"])
    assert {run.config.train.steps for run in runs} == {4}


def test_one_seed_one_recipe_and_one_name_twice_are_refused(tmp_path: Path) -> None:
    files = recipes(tmp_path)
    asked: dict[str, Any] = {"first_seed": 0, "out": tmp_path, "base": None, "overrides": []}
    with pytest.raises(UserError, match="interval over seeds takes at least 2"):
        runs_of(files, seeds=1, **asked)
    with pytest.raises(ConfigError, match="1 recipe given; at least 2"):
        runs_of(files[:1], seeds=2, **asked)
    with pytest.raises(ConfigError, match="its name 'grpo' is taken by"):
        runs_of([files[0], "shapes/grpo"], seeds=2, **asked)
    runs = runs_of(files, seeds=2, **asked)
    with pytest.raises(ConfigError, match="--baseline: 'gcpo' is not compared; grpo, late are"):
        baseline_of(runs, "gcpo")


def test_the_seed_decides_prompts_and_noise_and_is_the_same_for_all_methods(tmp_path: Path) -> None:
    runs = plan_runs(recipes(tmp_path), [5, 6], tmp_path / "out", base="shapes")
    found = [(r.method, r.config.train.seed, r.config.prompts.seed, r.path.name) for r in runs]
    assert found == [
        ("grpo", 5, 5, "grpo-seed5"),
        ("late", 5, 5, "late-seed5"),
        ("grpo", 6, 6, "grpo-seed6"),
        ("late", 6, 6, "late-seed6"),
    ]
    assert {run.config.model.name for run in runs} == {"shapes"}


def test_a_folder_with_runs_of_another_configuration_is_refused(tmp_path: Path) -> None:
    (run, *_) = runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    config = run.config.model_dump(mode="json")
    writing = RunWriter.create(run.path, config=config, environment={}, total=2)
    with writing, pytest.raises(RunError, match=f"process {os.getpid()} is writing this run"):
        check_runs(runs)
    check_runs(runs)
    others = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out", overrides=["optim.lr=0.5"])
    with pytest.raises(RunError, match=r"optim.lr was 0.01 when this run began and is 0.5 now"):
        check_runs(others)


# A whole comparison -----------------------------------------------------------------------------------------------


def test_a_stopped_comparison_goes_on_and_repeats_no_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    files = recipes(tmp_path)
    first, second, *others = plan_runs(files, [0, 1], out)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # as the first run is done
        runs = [first, second, *others]
        compare_runs(runs, evaluation=EVALUATION, workers=1, say=stop)
    assert first.state() == "finished" and not (out / "comparison.json").exists()
    assert [run.state() for run in others] == ["missing", "missing"]
    before = (first.path / "environment.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):  # a half run: its first step is saved
        api.train(second.config, report=lambda step, _: stop() if step == 2 else None)
    assert second.state() == "stopped" and second.steps_left() == 1
    others[0].config_file.write_text(to_yaml(others[0].config))
    finish(others[0].config_file, asdict(EVALUATION))  # done too, as its own process does it

    words = [
        "compare",
        *files,
        "--seeds",
        "2",
        "--out",
        str(out),
        "--prompts",
        "1",
        "--images",
        "2",
    ]
    monkeypatch.setattr("sys.argv", ["t2i-credit", *words, "--workers", "2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    assert (first.path / "environment.json").read_bytes() == before  # not so much as resumed
    resumed = json.loads((second.path / "environment.json").read_text())["resumed"]
    assert [start["step"] for start in resumed] == [1]
    found = json.loads((out / "comparison.json").read_text())
    names = ["grpo-seed0", "late-seed0", "grpo-seed1", "late-seed1"]
    assert [run["run"] for run in found["runs"]] == names
    assert found["seeds"] == [0, 1] and found["baseline"] == "grpo"
    assert found["methods"]["grpo"]["forward_passes"] == 4  # guided: two to sample, two to train
    (pair,) = found["differences"]
    assert (pair["a"], pair["b"]) == ("late", "grpo")
    assert pair["held_in"]["words"] == NO_DIFFERENCE  # neither draws shapes: 0 against 0
    # the first step is the same under both: the same prompts, the same noise
    curves = {run: _metrics(out / run) for run in ("grpo-seed1", "late-seed1", "grpo-seed0")}
    assert curves["grpo-seed1"][0]["reward"] == curves["late-seed1"][0]["reward"]
    assert curves["grpo-seed1"][0]["reward"] != curves["grpo-seed0"][0]["reward"]
    assert (out / "comparison.png").stat().st_size > 5000
    assert "late - grpo" in (out / "comparison.md").read_text()


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_fails_is_told_in_one_line_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = recipes(tmp_path)
    capsys.readouterr()  # what making the model printed
    out = tmp_path / "out"
    words = [*files, "--seeds", "2", "--out", str(out), "reward.toys:broken.after=0"]
    monkeypatch.setattr("sys.argv", ["t2i-credit", "compare", *words])
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1
    assert "grpo-seed0: step 1: reward toys:broken: returned a value that is not finite" in message
    assert not (out / "comparison.json").exists()
    late = out / "logs" / "late-seed0.log"
    assert not late.exists() or not late.read_text()  # no other was begun


# Its numbers ------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_comparison_are_those_of_its_runs(tmp_path: Path) -> None:
    runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    finished(runs[0], [0.0, 0.2, 0.4], 0.5, 0.1)  # grpo, seed 0
    finished(runs[1], [0.0, 0.4, 0.5], 0.60, 0.2)  # late, seed 0
    finished(runs[2], [0.2, 0.4, 0.6], 0.7, 0.2)  # grpo, seed 1
    finished(runs[3], [0.2, 0.5, 0.4], 0.81, 0.1)  # late, seed 1
    found = results(runs, EVALUATION, baseline="grpo", forward_passes={"grpo": 4, "late": 5})
    assert found["target"] == pytest.approx(0.5)  # mean of grpo's last rewards, 0.4 and 0.6
    grpo, late = found["methods"]["grpo"], found["methods"]["late"]
    assert grpo["held_in"]["mean"] == pytest.approx(0.6)
    assert grpo["area"]["mean"] == pytest.approx((0.2 + 0.4) / 2)
    # late reaches 0.5 after 24 and 16 samples; grpo never with seed 0, after 24 with seed 1
    assert late["to_target"] == {"median": 20, "censored": 0, "runs": 2}
    assert grpo["to_target"] == {"median": 24, "censored": 1, "runs": 2}
    assert late["seconds_per_step"] == pytest.approx(1.0) and late["forward_passes"] == 5
    assert late["truth"]["truth/auroc"][0] == pytest.approx(0.6)
    (pair,) = found["differences"]
    # 0.10 and 0.11: standard deviation 0.0070711, half-width 12.7062 * 0.0070711 / sqrt(2)
    assert pair["held_in"]["mean"] == pytest.approx(0.105)
    assert pair["held_in"]["low"] == pytest.approx(0.105 - 0.063531, abs=1e-5)
    assert pair["held_in"]["words"] == "late above grpo"
    assert pair["held_out"]["words"] == NO_DIFFERENCE
    assert pair["speed"]["mean"] == pytest.approx((24 / 24 * 24 / 16) ** 0.5)
    assert pair["speed"]["censored"] == [0, 1]
    table = markdown(found)
    assert "(never reached by 0 and 1 of 2: their end stands in)" in table
    assert "1 of 2 runs never reached it" in table and "+0.105 [+0.041, +0.169]" in table


def test_a_run_that_took_more_samples_is_compared_where_the_shortest_ends(tmp_path: Path) -> None:
    runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    for (
        run
    ) in runs:  # the same course over the steps, which cost the second method twice the samples
        twice = 16 if run.method == "late" else 8
        finished(run, [0.0, 0.2, 0.4], 0.5 + run.seed / 10, 0.1, samples=twice)
    found = results(runs, EVALUATION, baseline="grpo", forward_passes={"grpo": 4, "late": 4})
    grpo, late = found["methods"]["grpo"], found["methods"]["late"]
    assert found["equal_samples"] == 24
    assert (grpo["samples_per_step"], late["samples_per_step"]) == (8, 16)
    # late after 24 samples is half way between its first and its second step
    assert grpo["area"]["mean"] == pytest.approx(0.2)
    assert late["area"]["mean"] == pytest.approx(0.05)
    assert grpo["final_reward"]["mean"] == late["final_reward"]["mean"] == pytest.approx(0.4)
    assert grpo["reward_at_equal_samples"]["mean"] == pytest.approx(0.4)
    assert late["reward_at_equal_samples"]["mean"] == pytest.approx(0.1)
    assert "| 16 |" in markdown(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("about", "step"), 1),  # of an earlier checkpoint
        (("about", "prompts"), "mine.jsonl"),
        (("protocol", "temperature"), 0.5),
        (("protocol", "detector"), "owlv2"),
        (("prompts",), [{"text": "others", "negative": None}] * 6),  # the file was changed
    ],
)
def test_another_evaluation_is_not_taken_for_the_final_one(
    tmp_path: Path, key: tuple[str, ...], value: Any
) -> None:
    run = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")[0]
    finished(run, [0.0, 0.2], 0.5, 0.1)
    file = run.path / "evaluations/train-cfg2-t1-seed0.json"
    kept = json.loads(file.read_text())
    assert EVALUATION.found(run.path, "train") is not None
    inner = kept
    for name in key[:-1]:
        inner = inner[name]
    inner[key[-1]] = value
    file.write_text(json.dumps(kept))
    assert EVALUATION.found(run.path, "train") is None


def test_prompts_that_are_not_evaluated_are_refused(tmp_path: Path) -> None:
    files, other = recipes(tmp_path), tmp_path / "coco.jsonl"
    other.write_text(
        '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}\n'
    )
    runs = plan_runs(files, [0, 1], tmp_path / "out", None, [f"prompts.source={other}"])
    with pytest.raises(
        ConfigError,
        match=r"coco\.jsonl' cannot be compared on .*unknown class 'bench'.*--evaluate-on",
    ):
        compare_runs(runs, evaluation=EVALUATION)
    assert not (tmp_path / "out").exists()


def test_final_models_can_be_evaluated_on_a_file_of_prompts(tmp_path: Path) -> None:
    source = tmp_path / "two.jsonl"
    rows = [
        {"tag": "single_object", "include": [{"class": seen, "count": 1}], "prompt": prompt}
        for seen, prompt in (("cat", "a circle"), ("bird", "a ring"))
    ]
    # each line stands twice, and is one prompt all the same
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) * 2)
    runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    detector = "half_detector:halves"  # sees a cat on every image, never a bird
    evaluation = runs[0].kind.plan(runs[0].config, source=str(source), detector=detector, samples=3)
    for run in runs:
        run.kind.check(run.config, evaluation)
        run.kind.train(run.config, report=lambda step, metrics: None)
        assert evaluation.found(run.path, "train") is None
        evaluation.evaluate(run.path, "train")
        found = evaluation.found(run.path, "train")
        overall = found["summary"]["overall"]
        assert (overall["correct"], overall["prompts"], overall["images"]) == (0.5, 2, 12)
    found = results(runs, evaluation, baseline="grpo", forward_passes={"grpo": 4, "late": 4})
    assert found["methods"]["late"]["held_in"]["mean"] == 0.5
    assert list(found["methods"]["late"]["tasks"]) == ["single_object"]
    assert "held_out" not in found["methods"]["grpo"] and "held-out" not in markdown(found)
    curves = {name: [([8.0, 16.0], [0.1, 0.2])] * 2 for name in ("grpo", "late")}
    assert draw(found, curves).startswith(b"\x89PNG")


def test_a_file_to_evaluate_on_is_taken_whole_and_must_be_known_to_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "coco.jsonl"
    source.write_text(
        '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}\n'
    )
    run = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")[0]
    with pytest.raises(UserError, match="unknown class 'bench'"):
        run.kind.check(run.config, run.kind.plan(run.config, source=str(source)))
    words = ["compare", "a", "b", "--evaluate-on", str(source), "--prompts", "3"]
    monkeypatch.setattr("sys.argv", ["t2i-credit", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --prompts: ")


def test_the_plan_has_every_run_with_the_time_of_a_step(tmp_path: Path) -> None:
    runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    finished(runs[0], [0.0, 0.2], 0.5, 0.1)
    rows, hours = plan_rows(runs, workers=2)
    assert [row["state"] for row in rows] == ["finished", "missing", "missing", "missing"]
    assert [row["steps left"] for row in rows] == ["0", "2", "2", "2"]
    assert 0 < hours < 1
    assert not runs[1].path.exists()


def test_a_model_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = recipes(tmp_path)
    out = tmp_path / "out"
    words = [*files, "--seeds", "2", "--out", str(out), "--base", str(tmp_path / "none")]
    monkeypatch.setattr("sys.argv", ["t2i-credit", "compare", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "none': no such folder" in capsys.readouterr().err
    assert not out.exists()
