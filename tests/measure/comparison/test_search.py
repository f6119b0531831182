"""The search before a comparison: what it refuses, which runs it makes, what each method takes, and the whole of it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from comparisons import EVALUATION, finished, recipes

from t2i_credit import api
from t2i_credit.cli.commands import main
from t2i_credit.cli.worker import finish
from t2i_credit.config.schema import to_yaml
from t2i_credit.errors import ConfigError, RunError
from t2i_credit.measure.comparison.command import search_runs
from t2i_credit.measure.comparison.results import markdown, results, search_rows
from t2i_credit.measure.comparison.runs import plan_runs
from t2i_credit.measure.comparison.search import FIRST_SEED, Search, search_values

SEEDS = range(5)


def searched(words: str = "optim.lr=0.01,0.02", tries: int = 2) -> Search:
    return Search.of(words, tries, SEEDS)


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["optim.lr", "optim.lr=", "optim.lr=0.01", "=1,2", "optim.lr=1,", "optim.lr=1,1", "a=1, 1"],
)
def test_a_search_takes_a_key_and_two_different_values(words: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^--search: .* is not allowed; KEY=VALUE,VALUE"
    ) as error:
        Search.of(words, 2, SEEDS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train.seed=1,2", "--search: train.seed is each run's own"),
        ("prompts.seed =1,2", "--search: prompts.seed is each run's own"),
        ("train.steps=2,3", "--search: train.steps changes train.steps, which is the same for"),
        ("reward.toys:bright.weight=1,2", "--search: reward.* changes reward, which is the same"),
        ("prompts.per_step=2,3", "--search: prompts.per_step changes prompts.per_step, which"),
        (
            "rollout.cfg_scale=1,2",
            "rollout.cfg_scale changes rollout.cfg_scale, which is the same for all runs",
        ),
        ("tune.ema=0.9,0.99", "of tune.ema are not to be told apart .* it does not touch"),
        ("optim.weight_decay=1e-3,1e+3", "two of the values .* give a run the same name"),
        ("optim.rate=1,2", "optim.rate"),
        ("optim.lr=fast,slow", "optim.lr"),
        ("optim.lr=0.1,slow", "optim.lr"),
    ],
)
def test_a_key_that_is_not_the_methods_own_and_a_wrong_value_are_refused(
    tmp_path: Path, words: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        Search.of(words, 2, SEEDS).runs(recipes(tmp_path), tmp_path / "out", None, [])
    assert "\n" not in str(error.value)


def test_the_search_has_seen_no_seed_of_the_comparison() -> None:
    assert searched().seeds == range(FIRST_SEED, FIRST_SEED + 2)
    with pytest.raises(
        ConfigError, match=r"seed 101 is one of the comparison's.* 100 to 102; give ano"
    ):
        Search.of("optim.lr=1,2", 3, range(101, 106))


# What it finds ----------------------------------------------------------------------------------------------------


def test_every_method_is_tried_with_every_value_on_the_same_seeds_and_prompts(
    tmp_path: Path,
) -> None:
    tries = searched().runs(recipes(tmp_path), tmp_path / "out", None, ["train.steps=3"])
    names = [[run.path.relative_to(tmp_path / "out") for run in runs] for runs in tries.values()]
    assert [str(name) for name in names[1]] == [
        "search/grpo-seed100-lr0.02",
        "search/late-seed100-lr0.02",
        "search/grpo-seed101-lr0.02",
        "search/late-seed101-lr0.02",
    ]
    for value, runs in tries.items():
        assert {run.config.optim.lr for run in runs} == {float(value)}
        assert {run.config.train.steps for run in runs} == {3}
        assert [(r.config.train.seed, r.config.prompts.seed) for r in runs[1:3]] == [
            (100, 100),
            (101, 101),
        ]


def test_a_value_may_be_a_list(tmp_path: Path) -> None:
    search = searched("optim.betas=[0.9, 0.99], [0.9,0.95]", tries=1)
    assert search.values == ("[0.9, 0.99]", "[0.9,0.95]")
    second = search.runs(recipes(tmp_path), tmp_path / "out", None, [])[search.values[1]][0]
    assert second.config.optim.betas == (0.9, 0.95)
    assert second.path.name == "grpo-seed100-betas-0.9-0.95-"


def test_each_method_takes_the_value_with_the_largest_mean_area(tmp_path: Path) -> None:
    tries = searched().runs(recipes(tmp_path), tmp_path / "out", None, [])
    courses = {
        ("grpo", "0.01"): ([0.0, 0.6], [0.4, 0.6]),  # areas 0.3 and 0.5
        ("grpo", "0.02"): ([0.2, 0.8], [0.0, 0.5]),  # 0.5 and 0.25: better once, not on the mean
        ("late", "0.01"): ([0.0, 0.5], [0.0, 0.5]),
        ("late", "0.02"): ([0.0, 0.7], [0.0, 0.7]),
    }
    for value, runs in tries.items():
        for run in runs:
            finished(run, courses[run.method, value][run.seed - FIRST_SEED], 0.0, 0.0)
    tuned = search_values(searched(), tries)
    areas = tuned["methods"]["grpo"]["areas"]
    assert areas["0.01"] == pytest.approx([0.3, 0.5])
    assert areas["0.02"] == pytest.approx([0.5, 0.25])
    assert {name: found["chosen"] for name, found in tuned["methods"].items()} == {
        "grpo": "0.01",
        "late": "0.02",
    }
    assert (tuned["key"], tuned["seeds"], tuned["equal_samples"]) == ("optim.lr", [100, 101], 16)
    assert search_rows(tuned)[1] == {
        "method": "late",
        "0.01": "0.250",
        "0.02": "0.350",
        "optim.lr taken": "0.02",
    }


def test_areas_end_where_the_shortest_try_ends_and_of_equal_values_the_first_is_taken(
    tmp_path: Path,
) -> None:
    tries = searched(tries=1).runs(recipes(tmp_path), tmp_path / "out", None, [])
    for value, runs in tries.items():
        for run in runs:  # twice the samples a step: 0.2, then 0.4 that others do not get to
            more = run.method == "late" and value == "0.02"
            finished(run, [0.2, 0.2, 0.9] if more else [0.2, 0.2], 0, 0, samples=16 if more else 8)
    tuned = search_values(searched(tries=1), tries)
    assert tuned["equal_samples"] == 16
    assert tuned["methods"]["late"]["areas"]["0.02"] == pytest.approx([0.2])
    assert tuned["methods"]["late"]["chosen"] == "0.01"


# The whole --------------------------------------------------------------------------------------------------------


def test_a_comparison_with_a_search_trains_each_method_with_its_own_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, files = tmp_path / "out", recipes(tmp_path)
    tries = searched(tries=1).runs(files, out, None, [])
    first, *others = [run for runs in tries.values() for run in runs]
    for run in others:  # one is left to the command
        api.train(run.config, report=lambda step, metrics: None)
    words = [*files, "--seeds", "2", "--out", str(out), "--prompts", "1", "--images", "2"]
    words += ["--search", "optim.lr=0.01,0.02", "--search-seeds", "1"]

    def command(*more: str) -> str:
        monkeypatch.setattr("sys.argv", ["t2i-credit", "compare", *words, *more])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        return capsys.readouterr().out

    planned = command("--plan")
    assert planned.count("-seed100-") == 4 and planned.count("finished") == 3
    assert first.state() == "missing"  # a plan begins nothing
    api.train(first.config, report=lambda step, metrics: None)
    tuned, own = search_runs(searched(tries=1), tries, evaluation=EVALUATION)
    chosen = {name: found["chosen"] for name, found in tuned["methods"].items()}
    for run in plan_runs(files, [0, 1], out, own=own)[1:]:
        assert run.config.optim.lr == float(chosen[run.method])
        run.config_file.parent.mkdir(parents=True, exist_ok=True)
        run.config_file.write_text(to_yaml(run.config))
        finish(run.config_file, asdict(EVALUATION))
    assert "optim.lr taken" in command()
    found = json.loads((out / "comparison.json").read_text())
    assert found["search"] == tuned and found["seeds"] == [0, 1]
    assert [run["run"] for run in found["runs"]][:2] == ["grpo-seed0", "late-seed0"]
    table = (out / "comparison.md").read_text()
    assert "own optim.lr: the one with the largest mean area up to 16 images in" in table
    assert not list((out / "search").glob("*/evaluations"))  # of the search nothing is evaluated


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--baseline", "gcpo"], "--baseline: 'gcpo' is not compared"),
        (["--detector", "owl"], "owl"),
        (["optim.max_grad_norm=0.5"], "grpo-seed0: optim.max_grad_norm was .* take another --out"),
    ],
)
def test_what_would_refuse_the_comparison_is_said_before_the_search(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    told: str,
) -> None:
    out, files = tmp_path / "out", recipes(tmp_path)
    finished(plan_runs(files, [0, 1], out)[0], [0.0, 0.2], 0.0, 0.0)
    words = [*files, "--seeds", "2", "--out", str(out), "--search", "optim.lr=0.02,0.03", *more]
    monkeypatch.setattr("sys.argv", ["t2i-credit", "compare", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1 and re.search(told, message)
    assert not list(out.glob("search/*/metrics.jsonl"))


def test_a_run_of_the_search_that_fails_is_told_with_the_way_on(tmp_path: Path) -> None:
    overrides = ["reward.toys:broken.after=0"]
    tries = searched(tries=1).runs(recipes(tmp_path), tmp_path / "out", None, overrides)
    with pytest.raises(RunError, match=r"not finite.*; a value that does not train is left out of"):
        search_values(searched(tries=1), tries)


def test_without_a_search_nothing_is_said_of_one(tmp_path: Path) -> None:
    runs = plan_runs(recipes(tmp_path), [0, 1], tmp_path / "out")
    for run in runs:
        finished(run, [0.0, 0.2], 0.5 + run.seed / 10, 0.1)
    found = results(runs, EVALUATION, baseline="grpo", forward_passes={"grpo": 4, "late": 4})
    assert "its own" not in markdown(found)


def test_a_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    files = recipes(tmp_path)
    for runs in searched().runs(files, tmp_path / "out", None, []).values():
        finished(runs[0], [0.0, 0.2], 0.0, 0.0)
    with pytest.raises(RunError, match=r"optim.max_grad_norm was .* take another --out"):
        searched().runs(files, tmp_path / "out", None, ["optim.max_grad_norm=0.5"])
