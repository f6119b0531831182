"""Metrics that are read on: always what a fresh look at the file finds."""

from __future__ import annotations

import json

import pytest
from app_toys import start_toy_run

from t2i_credit.app.runs import REMEMBERED_RUNS, RunShelf
from t2i_credit.app.tail import MetricsTail
from t2i_credit.run_folder.reader import RunReader


@pytest.fixture
def run(tmp_path):
    begun = start_toy_run(tmp_path / "one", steps=10)
    (begun.path / "metrics.jsonl").unlink()
    return begun


def add(run, *steps):
    for step in steps:
        run.append_metrics(step, {"reward": step / 10})


def test_new_lines_join_the_known_ones(run):
    reader, tail = RunReader(run.path), MetricsTail()
    assert tail.lines(reader) == []
    for step in (1, 2, 3):
        add(run, step)
        assert tail.lines(reader) == reader.metrics()
    assert [line["step"] for line in tail.lines(reader)] == [1, 2, 3]


def test_a_line_that_is_being_written_comes_once_it_is_whole(run):
    reader, tail = RunReader(run.path), MetricsTail()
    add(run, 1)
    line = json.dumps({"step": 2, "reward": 0.5}).encode() + b"\n"
    with (run.path / "metrics.jsonl").open("ab", buffering=0) as file:
        for at in range(len(line)):
            file.write(line[at : at + 1])
            assert len(tail.lines(reader)) == (2 if at == len(line) - 1 else 1)


def test_a_damaged_line_is_left_out_and_the_next_ones_come(run):
    reader, tail = RunReader(run.path), MetricsTail()
    add(run, 1)
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    assert len(tail.lines(reader)) == 1
    add(run, 2)
    assert [line["step"] for line in tail.lines(reader)] == [1, 2]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_run_that_went_back_to_a_checkpoint_is_read_afresh(run, tmp_path, replaced):
    reader, tail = RunReader(run.path), MetricsTail()
    add(run, 1, 2, 3)
    tail.lines(reader)
    path = run.path / "metrics.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)[0]
    if replaced:
        (tmp_path / "new").write_bytes(kept + b'{"step": 2, "reward": 0.9, "much": "longer"}\n' * 3)
        (tmp_path / "new").rename(path)
    else:
        path.write_bytes(kept)
    assert tail.lines(reader) == reader.metrics()


def test_the_shelf_remembers_a_few_runs(tmp_path):
    shelf = RunShelf(tmp_path)
    for number in range(REMEMBERED_RUNS + 2):
        run = start_toy_run(tmp_path / f"run{number}", steps=10)
        add(run, 1)
        reader = shelf.open(f"run{number}")
        assert shelf.metrics(reader) == shelf.metrics(reader) == reader.metrics()
    assert len(shelf._tails) == REMEMBERED_RUNS
