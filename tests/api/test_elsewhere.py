"""A run that was begun with relative paths is sampled, exported, evaluated and resumed from any folder."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from toys import PROMPTS, recipe

from t2i_credit import api
from t2i_credit.api.export import export
from t2i_credit.api.launch import changes
from t2i_credit.cli.commands import main
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.errors import ModelError
from t2i_credit.measure.evaluation.store import trained_on
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run of a relative model, prompt file and head was begun."""
    start = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(start)
        (start / "head.txt").touch()
        (start / "needs_head.py").write_text(
            "from pathlib import Path\n"
            "import toys\n"
            "def bright(*, head: str):\n"
            "    assert Path(head).is_file(), head\n"
            "    return toys.bright()\n"
        )
        patch.syspath_prepend(start)
        sections = recipe(Path("."), reward={"needs_head:bright": {"head": "head.txt"}})
        api.train({**sections, "train": {**sections["train"], "steps": 1}})
    sys.modules.pop("needs_head")
    return start


@pytest.fixture
def away(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run that still names the files where it was begun; the working directory is another."""
    shutil.copytree(begun / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(begun)
    return tmp_path / "runs/run"


def command(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["t2i-credit", *map(str, words)])
        main()
    assert ended.value.code in (0, None)


def test_the_run_keeps_absolute_paths(begun: Path) -> None:
    config = RunReader(begun / "runs/run").config()
    assert config["model"]["name"] == f"{begun}/model"
    assert config["prompts"]["source"] == f"{begun}/prompts.jsonl"
    assert config["reward"]["needs_head:bright"]["head"] == f"{begun}/head.txt"
    assert config["train"]["out"] == f"{begun}/runs"


def test_the_run_is_sampled_exported_and_known_from_elsewhere(away: Path) -> None:
    command("sample", away, "a red circle", "--count", 2, "--out", "s")
    assert Path("s/0000.png").is_file()
    exported = export(str(away), Path("exported"))
    ours, theirs = (api.load_model(name).state_dict() for name in (away, exported))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert "`model` after 1 steps" in (exported / "README.md").read_text()
    assert "4 of 4 prompts are among those" in trained_on(str(away), list(PROMPTS))


def test_the_run_is_resumed_from_elsewhere_by_its_own_configuration(away: Path) -> None:
    config = away / "config.yaml"
    command("train", config, f"train.out={away.parent}", "train.steps=2", "--resume")
    assert [row["step"] for row in RunReader(away).metrics()] == [1, 2]


def test_a_run_of_relative_paths_of_before_goes_on_without_a_word_where_it_was_begun(
    begun: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = RunReader(begun / "runs/run").config()
    tree["model"]["name"], tree["prompts"]["source"] = "model", "prompts.jsonl"
    tree["reward"]["needs_head:bright"]["head"], tree["train"]["out"] = "head.txt", "runs"
    (away / "config.yaml").write_text(write_yaml(tree))
    monkeypatch.chdir(begun)
    assert changes(away, parse_config(tree)) == {}
    assert changes(away, load_config(str(begun / "runs/run/config.yaml"))) == {}
    assert api.load_model(away).grid == (2, 2)


def test_a_run_whose_model_is_gone_says_which_and_where_it_was_looked_for(
    begun: Path, away: Path
) -> None:
    tree = RunReader(away).config()
    for name, looked in ((f"{begun}/moved", ""), ("moved", f" (looked in {Path.cwd()})")):
        tree["model"]["name"] = name
        (away / "config.yaml").write_text(write_yaml(tree))
        wanted = f"{away}/config.yaml: model.name: model '{name}': no such folder; embedded models"
        with pytest.raises(ModelError, match=re.escape(wanted)) as caught:
            api.load_model(away)
        assert str(caught.value).endswith(looked) and "\n" not in str(caught.value)


def test_paths_of_the_command_line_may_begin_at_home(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(away.parent.parent))
    monkeypatch.setenv("HERE", "s")
    command("sample", "~/runs/run", "a red circle", "--count", 1, "--out=~/$HERE")
    assert Path("s/0000.png").is_file() and not Path("~").exists()
