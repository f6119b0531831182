"""Local paths of a configuration: expanded where it is read, absolute where a run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_files import refusal

from t2i_credit.config.places import anchored
from t2i_credit.config.plugins import check_params
from t2i_credit.config.schema import load_config
from t2i_credit.rewards import REWARDS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for name in (
        *("models/janus/config.json", "models/shapes/config.json", "my-clip/open_clip_config.json"),
        *("runs/base/config.yaml", "prompts.jsonl", "head.pth", "shapes/config.json", "plain/x"),
        *("a/b/config.json", "mask2former/config.json", "ViT-B-32/open_clip_config.json"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "absolute"),
    [
        ("models/janus", True),
        ("a/b", True),  # what is there is a path, though a hub id looks like it
        ("runs/base", True),
        ("runs/base@100", True),
        ("./shapes", True),
        ("shapes", False),  # the embedded one
        ("deepseek-community/Janus-Pro-1B", False),
        ("my_package:model", False),
        ("gone/model", False),
        ("gone@100", False),
    ],
)
def test_a_model_that_is_there_is_a_path_and_a_name_stays_one(
    here: str, name: str, absolute: bool
) -> None:
    found = anchored({"model": {"name": name, "dtype": "float32"}})["model"]
    wanted = f"{here}/{name.removeprefix('./')}" if absolute else name
    assert found == {"name": wanted, "dtype": "float32"}


def test_a_run_named_like_an_embedded_model_is_the_run(here: str) -> None:
    Path("shapes/config.yaml").touch()
    assert anchored({"model": {"name": "shapes"}})["model"]["name"] == f"{here}/shapes"


def test_prompt_file_and_run_folder_are_absolute_and_a_world_stays(here: str) -> None:
    tree = {"prompts": {"source": "prompts.jsonl"}, "train": {"out": "new/runs", "steps": 3}}
    found = anchored(tree)
    assert found["prompts"]["source"] == f"{here}/prompts.jsonl"
    assert found["train"] == {"out": f"{here}/new/runs", "steps": 3}
    assert tree["train"]["out"] == "new/runs"
    for source in ("shapes", "hf://datasets/a/b/c.jsonl", "gone.jsonl"):
        assert anchored({"prompts": {"source": source}})["prompts"]["source"] == source


def test_what_rewards_read_is_absolute_and_names_stay(here: str) -> None:
    reward: dict[str, Any] = {
        "geneval": {"detector": "mask2former", "model": "mask2former", "weight": 1.0},
        "clip": {"model": "ViT-B-32", "pretrained": "openai"},
        "aesthetic": {"head": "head.pth", "model": "my-clip", "dtype": "float32"},
        "pickscore": {"model": "a/b", "processor": "owner/name"},
        "my_reward:judge": {"files": ["head.pth", "plain"], "folder": "plain", "text": "gone"},
    }
    assert anchored({"reward": reward})["reward"] == {
        "geneval": {"detector": "mask2former", "model": f"{here}/mask2former", "weight": 1.0},
        "clip": {"model": "ViT-B-32", "pretrained": "openai"},  # open_clip's architecture
        "aesthetic": {"head": f"{here}/head.pth", "model": f"{here}/my-clip", "dtype": "float32"},
        "pickscore": {"model": f"{here}/a/b", "processor": "owner/name"},
        "my_reward:judge": {
            "files": [f"{here}/head.pth", "plain"],
            "folder": "plain",
            "text": "gone",
        },
    }


def test_home_and_variables_are_expanded_in_files_and_overrides(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    name = write('train: {out: "${HOME}/runs"}\nprompts: {source: ~/p.jsonl}\n')
    loaded = load_config(name, ["model.name=$DATA/janus"])
    assert loaded.train.out == "/home/me/runs"
    assert loaded.prompts.source == "/home/me/p.jsonl"
    assert loaded.model.name == "/data/janus"
    assert load_config(name, ["train.out=~/other"]).train.out == "/home/me/other"


def test_a_base_and_a_recipe_may_lie_at_home(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write("rollout: {group_size: 6}\n", "home/base.yaml")
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    write("base: ~/base.yaml\n", "home/mine.yaml")
    assert load_config("~/mine.yaml").rollout.group_size == 6
    message = refusal(write("base: ${T2I_NOWHERE}/x\n"))
    assert message == "x.yaml: base: '${T2I_NOWHERE}/x': the variable T2I_NOWHERE is not set"


@pytest.mark.parametrize(
    ("name", "key"),
    [("geneval", "model"), ("clip", "pretrained"), ("aesthetic", "head"), ("hpsv2", "weights")],
)
def test_the_weights_of_a_reward_may_lie_at_home(
    name: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"weights": "x", key: "~/w.pt"} if name == "hpsv2" else {key: "~/w.pt"}
    assert check_params(REWARDS[name], given, f"reward.{name}")[key] == "/home/me/w.pt"
