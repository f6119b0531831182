"""Comparisons of recipes for text: what cannot be compared, and a whole one, stopped and taken up again."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the pip extra text")

from safetensors.torch import load_file
from tiny_texts import write_checkpoint

from t2i_credit.cli.commands import main
from t2i_credit.cli.worker import finish
from t2i_credit.config.schema import to_yaml
from t2i_credit.errors import ConfigError, UserError
from t2i_credit.measure.comparison.command import plan_rows
from t2i_credit.measure.comparison.kind import Run, curve
from t2i_credit.measure.comparison.runs import load_recipe, plan_runs
from t2i_credit.measure.comparison.text import TextPlan
from t2i_credit.run_folder.reader import RunReader

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)
METHODS = ["arithmetic/grpo", "arithmetic/gcpo"]
PLAN = TextPlan(problems=4, answers=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for runs of two steps on a random model."""
    model = write_checkpoint(tmp_path_factory.mktemp("llama"), "llama")
    return [
        f"model.name={model}",
        "train.steps=2",
        "train.checkpoint_every=1",
        "prompts.count=20",
        "grpo.per_device_train_batch_size=8",
        "grpo.num_generations=4",
    ]


def refused(files: list[str], out: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        plan_runs(files, [0, 1], out, overrides=overrides)
    assert "\n" not in str(error.value) and not out.exists()
    return str(error.value)


def test_images_and_text_are_not_compared(tmp_path: Path) -> None:
    told = refused(["shapes/rloo", "arithmetic/grpo"], tmp_path / "out")
    assert told.startswith("compare: shapes/rloo is for images and arithmetic/grpo for text;")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("model: {name: other}", "compare: model.name is 'arithmetic' in arithmetic/grpo and 'o"),
        ("train: {steps: 7}", "compare: train.steps is 100 in arithmetic/grpo and 7 in"),
        ("prompts: {count: 16}", "compare: prompts.count is 4000 in arithmetic/grpo and 16 in"),
        ("grpo: {num_generations: 4}", "compare: grpo.num_generations is 8 in arithmetic/grpo and"),
        (
            "grpo: {gradient_accumulation_steps: 2}",
            "compare: grpo.generation_batch_size is 128 in arithmetic/grpo and 256 in",
        ),
    ],
)
def test_recipes_that_differ_in_model_problems_or_budget_are_refused_by_key(
    tmp_path: Path, changes: str, told: str
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"base: arithmetic/grpo\n{changes}\n")
    assert refused(["arithmetic/grpo", str(other)], tmp_path / "out").startswith(told)


def test_a_mistake_in_a_recipe_names_it(tmp_path: Path) -> None:
    told = refused(METHODS, tmp_path / "out", "grpo.num_generations=5")
    assert told.startswith("command line: grpo.num_generations: ")
    kind, config = load_recipe("arithmetic/grpo")
    with pytest.raises(ConfigError, match=r"^--cfg-scale: for images alone"):
        kind.plan(config, cfg_scale=2.0)


def test_without_trl_a_comparison_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.delitem(sys.modules, "t2i_credit.text.arguments", raising=False)
    monkeypatch.setitem(sys.modules, "trl", None)  # as if it were not installed
    with pytest.raises(
        UserError, match=r"^trl is not installed; .*: pip install 't2i-credit\[text"
    ):
        plan_runs(METHODS, [0], tmp_path / "out")


@pytest.mark.parametrize(
    ("recipe", "more", "passes"),
    [
        ("grpo", [], 2),  # sampling, the update
        ("dapo", [], 2),
        ("dapo", ["grpo.num_iterations=2"], 4),  # one more update, and the log-probs before both
        ("gcpo", [], 4),  # both prompts
        ("dgpo", [], 4),  # the reference, and the policy as it is
        ("gold", [], 2),
    ],
)
def test_passes_are_counted_without_a_model(recipe: str, more: list[str], passes: int) -> None:
    kind, config = load_recipe(f"arithmetic/{recipe}", ["model.name=/nowhere", *more])
    assert kind.passes(config) == passes and kind.samples_per_step(config) == 128


def test_a_stopped_comparison_goes_on_and_repeats_no_finished_run(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    runs = plan_runs(METHODS, [0, 1], out, overrides=small)
    half = runs[1]

    def stop(step: int, metrics: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half.kind.train(half.config, report=stop)
    assert half.state() == "stopped" and half.steps_left() == 1
    half.config_file.parent.mkdir()
    for run in (runs[0], *runs[2:]):  # done already, as each run's own process does it
        run.config_file.write_text(to_yaml(run.config))
        finish(run.config_file, asdict(PLAN))

    compare(monkeypatch, *METHODS, *small, "--seeds", "2", "--out", str(out))
    resumed = json.loads((half.path / "environment.json").read_text())["resumed"]
    assert [start["step"] for start in resumed] == [1]
    found = json.loads((out / "comparison.json").read_text())
    assert [run["run"] for run in found["runs"]] == [
        "grpo-seed0",
        "gcpo-seed0",
        "grpo-seed1",
        "gcpo-seed1",
    ]
    assert found["samples_per_step"] == 8
    assert found["evaluation"] == asdict(PLAN)
    for run in found["runs"]:
        # random weights cannot calculate
        assert run["held_in"] == run["held_out"] == run["pass_at_k"] == 0
        assert set(run["tasks"]) <= {"2 steps", "3 steps", "4 steps"} and run["samples"] == 16
        assert run["seconds_per_step"] > 0
    assert [m["forward_passes"] for m in found["methods"].values()] == [2, 4]
    table = (out / "comparison.md").read_text()
    assert "2 steps of 8 answers" in table and table.count("pass@2") == 2
    assert (out / "comparison.png").stat().st_size > 5000
    assert prompts_of(runs[0], 1) == prompts_of(half, 1) != prompts_of(runs[2], 1)
    assert prompts_of(runs[0], 2) == prompts_of(half, 2)

    # every run is finished: nothing is trained again, and the numbers are the same
    before = (half.path / "environment.json").read_bytes()
    compare(monkeypatch, *METHODS, *small, "--seeds", "2", "--out", str(out))
    assert (half.path / "environment.json").read_bytes() == before
    assert json.loads((out / "comparison.json").read_text()) == found
    assert PLAN.found(half.path, "heldout") is not None
    assert replace(PLAN, problems=5).found(half.path, "heldout") is None
    (file,) = half.path.glob("evaluations/heldout*.json")
    earlier = json.loads(file.read_text())
    earlier["about"]["step"] = 1
    file.write_text(json.dumps(earlier))  # of a checkpoint before the last is not the final one
    assert PLAN.found(half.path, "heldout") is None

    # and what was stopped is what it would have been
    (_, whole, *_) = plan_runs(METHODS, [0, 1], tmp_path / "whole", overrides=small)
    whole.kind.train(whole.config, report=lambda step, metrics: None)
    assert curve(whole) == curve(half)
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (whole, half)]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def compare(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    plan = ["--prompts", "4", "--images", "2", "--workers", "2"]
    monkeypatch.setattr("sys.argv", ["t2i-credit", "compare", *words, *plan])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)


def prompts_of(run: Run, step: int) -> list[str]:
    return [sample["prompt"] for sample in RunReader(run.path).samples(step)]


def test_the_plan_times_a_step_of_each_method(tmp_path: Path, small: list[str]) -> None:
    rows, hours = plan_rows(plan_runs(METHODS, [0, 1], tmp_path / "out", overrides=small), 2)
    assert [row["steps left"] for row in rows] == ["2"] * 4 and 0 < hours < 1
    assert not (tmp_path / "out").exists()
