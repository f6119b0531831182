"""A resume that is refused leaves every byte of the run; one that is not needs neither status nor environment."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_states import changed, rewritten
from toys import recipe, tiny_model
from training_runs import trained

from t2i_credit import api
from t2i_credit.cli.commands import main
from t2i_credit.models.embedded_model import EmbeddedConfig
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and every folder as nothing."""
    found = sorted(folder.rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, with trackers and pictures beside it, and another model."""
    folder = tmp_path_factory.mktemp("made")
    run = trained(folder, train={"trackers": ["tensorboard"]})
    (run.path / "heatmaps" / "000006").mkdir(parents=True)
    with (run.path / "metrics.jsonl").open("ab") as file:  # a killed process had gone on
        file.write(b'{"step": 7, "reward": 0.5}\n')
    (run.path / "steps" / "000007").mkdir()
    other = lambda **sizes: EmbeddedConfig(**{**sizes, "codebook_size": 48})  # noqa: E731
    tiny_model(other).save_pretrained(folder / "other")  # type: ignore[arg-type]
    tiny_model(seed=1).save_pretrained(folder / "alike")
    lines = (folder / "prompts.jsonl").read_text().splitlines()
    (folder / "others.jsonl").write_text("\n".join(lines[:-1]))
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def without(*keys: str) -> Callable[[Path], None]:
    """Takes an entry out of a checkpoint's state.json."""

    def change(checkpoint: Path) -> None:
        def taken_out(value: Any) -> None:
            for key in keys[:-1]:
                value = value[key]
            del value[keys[-1]]

        changed(checkpoint, taken_out)

    return change


def other_moments(checkpoint: Path) -> None:
    """Moments of a parameter that has another shape."""
    names = [f'"optimizer.state.{i}.exp_avg"' for i in (0, 1, 2)]

    def turned(state: str) -> str:
        assert all(name in state for name in names)
        for old, new in zip(names, ('"first"', *names), strict=False):
            state = state.replace(old, new)
        return state.replace('"first"', names[2])

    rewritten(checkpoint, turned)


def nothing(checkpoint: Path) -> None:
    """Leaves the checkpoint as it is."""


@pytest.mark.parametrize(
    ("overrides", "change", "said"),
    [
        (["train.steps=2"], nothing, "train.steps: 2 is not allowed; "),
        (["train.steps=8", "tune.lora_rank=4"], nothing, "is not in this checkpoint; same config?"),
        (["tune.modules=[image_head]"], nothing, "was trained and is not now; same config?"),
        (
            ["model.name=FOLDER/other"],
            nothing,
            "does not fit the model of this run's configuration",
        ),
        (["model.name=FOLDER/alike"], nothing, "began with the weights of another model"),
        (["prompts.source=FOLDER/others.jsonl"], nothing, "began with another set of prompts"),
        (["model.name=FOLDER/none"], nothing, "no such folder"),
        (["model.dtype=bfloat16"], nothing, "and is torch.bfloat16 now; same model.dtype?"),
        (["prompts.source=FOLDER/none.jsonl"], nothing, "none.jsonl"),
        ([], without("extra"), "state.json: damaged, not the state of a checkpoint"),
        ([], without("files"), "state.json: damaged, not the state of a checkpoint"),
        ([], without("optimizer", "dict", 0), "does not fit this run: "),  # type: ignore[arg-type]
        ([], other_moments, "does not fit this run: exp_avg of parameter 0 has shape"),
        ([], lambda c: (c / "model.safetensors").write_bytes(b"x"), "1 bytes instead of"),
    ],
)
def test_a_refused_resume_changes_no_byte(
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    change: Callable[[Path], object],
    said: str,
) -> None:
    run = copied / "runs" / "run"
    change(run / "checkpoints" / "000006")
    config = recipe(copied, train={"trackers": ["tensorboard"]})
    (copied / "recipe.yaml").write_text(write_yaml(config))
    before = contents(copied)
    given = [word.replace("FOLDER", str(copied)) for word in overrides]
    words = ["t2i-credit", "train", str(copied / "recipe.yaml"), "--resume", *given]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and told[-1].startswith("error: ") and said in told[-1]
    assert contents(copied) == before


@pytest.mark.parametrize(
    "words",
    [
        ["export", "RUN", "FOLDER/exported"],
        ["evaluate", "RUN", "--per-task", "1", "--per-prompt", "1", "--against", "shapes"],
        ["evaluate", "shapes", "--per-task", "1", "--out", "RUN/evaluations", "--against", "RUN"],
        ["heatmap", "RUN", "--step", "99"],
    ],
    ids=["export", "evaluate", "against", "heatmap"],
)
def test_a_command_that_refuses_a_damaged_run_changes_no_byte(
    copied: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    run = copied / "runs" / "run"
    (run / "checkpoints" / "000006" / "model.safetensors").write_bytes(b"x")
    before = contents(copied)
    places = {"RUN": str(run), "FOLDER": str(copied)}
    given = [functools.reduce(lambda w, p: w.replace(*p), places.items(), word) for word in words]
    monkeypatch.setattr("sys.argv", ["t2i-credit", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and contents(copied) == before


@pytest.mark.parametrize("name", ["status.json", "environment.json"])
def test_a_healthy_run_goes_on_without_its_status_or_environment(copied: Path, name: str) -> None:
    run = RunReader(copied / "runs" / "run")
    (run.path / name).unlink()
    config = recipe(copied, train={"steps": 7, "trackers": ["tensorboard"]})
    api.train(config, resume=True, warn=lambda line: None)
    assert run.status().state == "finished" and len(run.metrics()) == 7
    assert run.environment()["resumed"][0]["step"] == 6


# 2 prompts x 4 images a step, as `recipe` has it: 8, 16, 24 images; then 2 images of each prompt, 4 a step: 28, 32
def test_samples_of_the_past_stay_when_a_resumed_run_takes_fewer(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    fewer = recipe(tmp_path, train={"steps": 5}, rollout={"group_size": 2})
    run = RunReader(api.train(fewer, resume=True, warn=lambda line: None))
    assert [row["samples"] for row in run.metrics()] == [8, 16, 24, 28, 32]


# 3 steps of 2 prompts; then 3 prompts a step, 12 images: 24 + 12 = 36, 48
def test_prompts_go_on_where_they_were_when_a_resumed_step_takes_more(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    more = recipe(tmp_path, train={"steps": 5}, prompts={"per_step": 3})
    run = RunReader(api.train(more, resume=True, warn=lambda line: None))
    assert [row["samples"] for row in run.metrics()] == [8, 16, 24, 36, 48]


def test_a_checkpoint_that_did_not_count_samples_is_taken_as_today(copied: Path) -> None:
    def of_before(value: dict[str, Any]) -> None:
        new = ("samples", "silent")
        value["extra"]["dict"] = [entry for entry in value["extra"]["dict"] if entry[0] not in new]

    changed(copied / "runs" / "run" / "checkpoints" / "000006", of_before)
    config: dict[str, Any] = recipe(copied, train={"steps": 7, "trackers": ["tensorboard"]})
    run = RunReader(api.train(config, resume=True, warn=lambda line: None))
    assert [row["samples"] for row in run.metrics()] == [8 * n for n in range(1, 8)]
