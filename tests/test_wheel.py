"""The wheel in an empty environment, with the declared ranges, used outside the repository. Needs the package index."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT


def run(*words: str | Path, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.newest
def test_the_wheel_installs_from_the_index_and_fine_tunes_outside_the_repository(
    tmp_path: Path,
) -> None:
    uv = (sys.executable, "-m", "uv")
    source, elsewhere = tmp_path / "source", tmp_path / "some where else"
    ignored = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    elsewhere.mkdir()
    run(*uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, source, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(*uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(*uv, "pip", "install", "--quiet", "--python", python, f"{wheel}[text]", folder=elsewhere)
    command = python.with_name("t2i-credit")
    said = run(command, "demo", "--steps", "3", folder=elsewhere)
    assert "4/4" in said
    assert list((elsewhere / "runs" / "demo" / "heatmaps").rglob("*.png"))
    run(command, "train", "arithmetic/grpo", "train.steps=1", "train.name=text", folder=elsewhere)
    assert (elsewhere / "runs" / "text" / "model").is_dir()
