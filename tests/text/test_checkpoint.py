"""A run on text that was stopped goes on as if it had not been: the same metrics, the same weights, bit for bit."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_states import changed

pytest.importorskip("trl", reason="needs the pip extra text")

from safetensors.torch import load_file, save_file
from tiny_texts import write_checkpoint

from t2i_credit.config.text import load_text_config
from t2i_credit.errors import ConfigError, RunError
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.text.run import prepare_text, run_text
from t2i_credit.training.stopping import Stopped

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


class Stop(Exception):
    """What stops a run here."""


def train(
    model: Path,
    folder: Path,
    recipe: str,
    *more: str,
    resume: bool = False,
    stop_after: int | None = None,
    signal_at: tuple[int, int] = (0, 0),
) -> RunReader:
    """Six steps with a checkpoint after each third; an epoch has two of them.

    `signal_at`: the call of the reward function, counted from 1, in which the signal comes.
    """
    given = [
        f"model.name={model}",
        f"train.out={folder}",
        "train.name=run",
        "train.steps=6",
        "train.checkpoint_every=3",
        "prompts.count=4",
        "grpo.per_device_train_batch_size=8",
        "grpo.num_generations=4",
        "grpo.max_completion_length=12",
        "grpo.learning_rate=0.01",
        "log.samples_every=2",
        *more,
    ]
    found = load_text_config(recipe, given)
    assert found is not None

    def report(step: int, metrics: Any) -> None:
        if step == stop_after:
            raise Stop

    parts, calls = prepare_text(*found), []

    def reward(*args: Any, **more: Any) -> list[float]:
        calls.append(None)
        if len(calls) == signal_at[0]:
            signal.raise_signal(signal_at[1])
        return parts.reward(*args, **more)

    reward.__name__ = parts.reward.__name__  # of its metric
    try:
        run_text(replace(parts, reward=reward), resume=resume, report=report, warn=told.append)
    except Stop:
        assert stop_after is not None
    return RunReader(folder / "run")


told: list[str] = []  # warnings


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "time/step"} for row in rows]


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("arithmetic/gcpo", ["grpo.lr_scheduler_type=linear"]),
        ("arithmetic/dapo", ["grpo.gradient_accumulation_steps=2", "grpo.num_iterations=2"]),
        ("arithmetic/dgpo", ["grpo.beta=0.1"]),
        ("arithmetic/gold", ["grpo.max_completion_length=72"]),
        (
            "arithmetic/grpo",
            ["grpo.beta=0.1", "grpo.sync_ref_model=true", "grpo.ref_model_sync_steps=2"],
        ),
    ],
)
def test_a_resumed_run_is_the_undisturbed_one(
    model: Path, tmp_path: Path, recipe: str, more: list[str]
) -> None:
    whole = train(model, tmp_path / "whole", recipe, *more)
    parts = tmp_path / "parts"
    stopped = train(model, parts, recipe, *more, stop_after=4)
    assert stopped.checkpoints() == [3] and stopped.status().state == "failed"
    assert [row["step"] for row in stopped.metrics()] == [1, 2, 3, 4]
    resumed = train(model, parts, recipe, *more, resume=True)
    assert resumed.environment()["resumed"][0]["step"] == 3
    assert without_times(resumed.metrics()) == without_times(whole.metrics())
    assert [row["step"] for row in resumed.metrics()] == [1, 2, 3, 4, 5, 6]
    assert resumed.steps() == whole.steps() == [1, 2, 4, 6]
    assert resumed.samples(6) == whole.samples(6)
    for place in ("model", "checkpoints/000006/model"):
        ours, theirs = (
            load_file(run.path / place / "model.safetensors") for run in (resumed, whole)
        )
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours)
    files = [path.suffix for path in resumed.path.rglob("*") if path.is_file()]
    assert set(files) <= {".json", ".jsonl", ".yaml", ".safetensors", ".jinja"}  # no pickle


def test_a_step_is_a_rollout_with_all_its_updates(model: Path, tmp_path: Path) -> None:
    more = ["train.steps=2", "grpo.num_iterations=2"]
    rows = train(model, tmp_path, "arithmetic/dapo", *more).metrics()
    assert [row["samples"] for row in rows] == [8, 16]
    assert all("reward" in row and row["time/step"] > 0 for row in rows)
    state = json.loads(
        (tmp_path / "run/checkpoints/000002/model/trainer_state.json").read_text("utf-8")
    )
    assert state["global_step"] == 4  # two updates each


def test_a_finished_run_resumed_stays_as_it_is_and_keeps_its_newest_checkpoints(
    model: Path, tmp_path: Path
) -> None:
    more = ["train.steps=3", "train.checkpoint_every=1"]
    first = train(model, tmp_path, "arithmetic/grpo", *more)
    assert first.checkpoints() == [2, 3]
    before = first.metrics(), (first.path / "model" / "model.safetensors").read_bytes()
    told.clear()
    again = train(
        model, tmp_path, "arithmetic/grpo", *more, "train.keep_checkpoints=1", resume=True
    )
    assert (again.metrics(), (again.path / "model" / "model.safetensors").read_bytes()) == before
    assert again.checkpoints() == [3] and again.status().state == "finished"
    assert told == ["train.keep_checkpoints was 2 so far, and is 1 from here on"]


def test_what_cannot_go_on_is_refused_in_one_line(model: Path, tmp_path: Path) -> None:
    run = train(model, tmp_path, "arithmetic/grpo", "train.steps=3", stop_after=3)
    with pytest.raises(ConfigError, match=r"^--resume: grpo.learning_rate was 0.01 so far"):
        train(model, tmp_path, "arithmetic/grpo", "grpo.learning_rate=0.1", resume=True)
    # stopped as step 3 was reported, before its checkpoint: from the beginning
    again = train(model, tmp_path, "arithmetic/grpo", "train.steps=3", resume=True)
    assert again.environment()["resumed"][0]["step"] == 0 and len(again.metrics()) == 3
    weights = run.path / "checkpoints" / "000003" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"model.safetensors: \d+ bytes instead of \d+"):
        train(model, tmp_path, "arithmetic/grpo", resume=True)

    def of_two_processes(value: dict[str, Any]) -> None:
        value["files"] = value["sha256"] = {}
        (extra,) = (entry for name, entry in value["extra"]["dict"] if name == "random")
        extra *= 2

    changed(run.path / "checkpoints" / "000003", of_two_processes)
    with pytest.raises(RunError, match="2 processes wrote it; 1 cannot go on"):
        train(model, tmp_path, "arithmetic/grpo", resume=True)


def test_rollouts_that_no_number_of_updates_fits_are_refused(model: Path, tmp_path: Path) -> None:
    odd = ["grpo.gradient_accumulation_steps=3", "grpo.steps_per_generation=2"]
    with pytest.raises(ConfigError, match="value 3 is not allowed with rollouts of 2 micro-batch"):
        train(model, tmp_path, "arithmetic/grpo", *odd)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_the_last_step_and_the_run_goes_on_undisturbed(
    model: Path, tmp_path: Path, number: int
) -> None:
    keep = "train.keep_checkpoints=1"
    whole = train(model, tmp_path / "whole", "arithmetic/gcpo", keep)
    with pytest.raises(Stopped) as caught:
        train(model, tmp_path / "parts", "arithmetic/gcpo", keep, signal_at=(5, number))
    name = signal.Signals(number).name
    goes_on = "--resume goes on after step 4, the newest checkpoint"
    assert (str(caught.value), caught.value.code) == (f"stopped by {name}; {goes_on}", 128 + number)
    left = RunReader(tmp_path / "parts" / "run")
    assert left.checkpoints() == [4] and len(left.metrics()) == 4
    train(model, tmp_path / "parts", "arithmetic/gcpo", keep, resume=True)
    assert without_times(left.metrics()) == without_times(whole.metrics())
    # 8 answers a step
    assert [row["samples"] for row in left.metrics()] == [8, 16, 24, 32, 40, 48]
    ours, theirs = (load_file(r.path / "model/model.safetensors") for r in (left, whole))
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def test_a_refused_resume_changes_no_byte(model: Path, tmp_path: Path) -> None:
    run = train(model, tmp_path, "arithmetic/grpo", "train.steps=3").path
    checkpoint = run / "checkpoints" / "000003"

    def refuses(kind: type[Exception], said: str, *more: str) -> None:
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        with pytest.raises(kind, match=said):
            train(model, tmp_path, "arithmetic/grpo", "train.steps=4", *more, resume=True)
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before

    refuses(RunError, r"^train.steps: 2 is not allowed; .*checkpoint of step 3", "train.steps=2")
    refuses(ConfigError, "^--resume: train.seed was", "train.seed=3")
    changed(checkpoint, lambda state: state.update(files={}, sha256={}))
    trainer_state = checkpoint / "model" / "trainer_state.json"
    kept = trainer_state.read_text()
    trainer_state.write_text("{")
    refuses(RunError, "000003: damaged: .*; delete the checkpoint's folder")
    trainer_state.write_text(kept)
    weights = checkpoint / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = min(tensors)
    save_file({**tensors, name: tensors[name][:1].clone()}, weights)
    refuses(RunError, f"damaged: {name} does not fit the model of this run")


@pytest.mark.parametrize("name", ["status.json", "environment.json"])
def test_a_run_on_text_goes_on_without_its_status_or_environment(
    model: Path, tmp_path: Path, name: str
) -> None:
    run = train(model, tmp_path, "arithmetic/grpo", "train.steps=1")
    (run.path / name).unlink()
    train(model, tmp_path, "arithmetic/grpo", "train.steps=2", resume=True)
    assert run.status().state == "finished" and len(run.metrics()) == 2
