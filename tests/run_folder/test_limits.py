"""Files that are no files, or far too large: one line at once, and nothing waits or swells."""

from __future__ import annotations

import ast
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from app_toys import write_toy_run
from PIL import Image, UnidentifiedImageError
from repository import ROOT
from safetensors.numpy import load_file, save_file

from t2i_credit.errors import RunError
from t2i_credit.rollout.images import read_image
from t2i_credit.run_folder.reader import RunReader, list_runs

FILES = {
    "config.yaml": lambda run: RunReader(run).config(),
    "environment.json": lambda run: RunReader(run),
    "status.json": lambda run: RunReader(run).status(),
    "metrics.jsonl": lambda run: RunReader(run).metrics(),
    "steps/000009/samples.json": lambda run: RunReader(run).samples(9),
    "steps/000009/arrays.safetensors": lambda run: RunReader(run).step(9),
    "evaluations/train-cfg2.json": lambda run: RunReader(run).evaluation("train-cfg2"),
    "evaluations/train-cfg2.jsonl": lambda run: RunReader(run).evaluation_images("train-cfg2"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_toy_run(tmp_path / "one")


def refused(read: Callable[[Path], object], run: Path) -> str:
    """The one line that is said, at once and without a hundred megabytes more."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(RunError) as caught:
        read(run)
    assert time.perf_counter() - began < 60  # at once; a pipe would wait for ever
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_blocks_nobody(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    if name == "environment.json":
        assert "no environment.json" in refused(FILES[name], run)
        return
    said = refused(FILES[name], run)
    assert name in said and "not a regular file" in said
    assert len(list_runs(run)) == 1


@pytest.mark.parametrize("name", [name for name in FILES if name != "metrics.jsonl"])
def test_a_file_of_eight_gigabytes_is_not_read(run: Path, name: str) -> None:
    os.truncate(run / name, 8 << 30)  # sparse: it takes no room
    said = refused(FILES[name], run)
    assert name in said and "bytes, and at most" in said


def test_a_device_in_place_of_a_file_blocks_nobody(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to("/dev/zero")
    assert "not a regular file" in refused(FILES["metrics.jsonl"], run)


def test_a_small_file_with_a_huge_picture_is_not_decoded(run: Path) -> None:
    record = RunReader(run).step(9)
    Image.new("L", (13_000, 13_000)).save(record.folder / record.samples[0]["image"])
    said = refused(lambda run: RunReader(run).step(9).image(0), run)
    assert "13000 x 13000 pixels, too many" in said
    record.image(1)  # the others are shown


def test_a_file_of_names_alone_is_refused_before_they_are_parsed(run: Path) -> None:
    path = run / "steps/000009/arrays.safetensors"
    save_file({**load_file(path), **{f"{i}": np.zeros(0, "f4") for i in range(2000)}}, path)
    assert "bytes of names, and at most 65,536" in refused(FILES["steps/000009/" + path.name], run)


@pytest.mark.parametrize("mark", ["[],", '{"":0},', '{"a":{}},', "1.5,"])
def test_a_text_of_values_alone_is_refused_before_they_are_made(run: Path, mark: str) -> None:
    for name in ("steps/000009/samples.json", "evaluations/train-cfg2.json"):
        (run / name).write_text('{"samples":[' + mark * (16_000_000 // len(mark)) + "1]}")
        assert "would take" in refused(FILES[name], run)
    lines = ("[" + mark * 300_000 + "1]\n") * (4 if len(mark) < 5 else 2)
    (run / "evaluations/train-cfg2.jsonl").write_text(lines * 4)
    assert "at most" in refused(FILES["evaluations/train-cfg2.jsonl"], run)


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "GIF"])
def test_a_picture_of_another_format_is_not_read_whatever_it_is_called(
    run: Path, kind: str
) -> None:
    record = RunReader(run).step(9)
    path = record.folder / record.samples[0]["image"]
    Image.new("RGB", (8, 8)).save(path, kind)
    assert "not an image" in refused(lambda run: RunReader(run).step(9).image(0), run)
    if kind != "TIFF":  # that a golden reference may be
        with pytest.raises(UnidentifiedImageError):
            read_image(path)


def test_every_picture_is_opened_as_one_of_few_formats() -> None:
    folders = ("t2i_credit", "models", "rewards", "app")
    calls = [
        (file, node)
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    ]
    assert len(calls) >= 3
    for file, node in calls:
        assert "formats" in [one.arg for one in node.keywords], f"{file}:{node.lineno}"
