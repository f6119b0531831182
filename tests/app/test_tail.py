"""Metrics that are read on: always what a fresh look at the file finds."""

from __future__ import annotations

import itertools
import json
import resource
import time

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


def test_a_quarter_of_a_million_steps_are_thinned_while_they_are_read(run):
    more = {f"reward_{n}": 0.123456789 for n in range(20)}
    lines = (json.dumps({"step": n, **more}).encode() + b"\n" for n in range(1, 250_001))
    with (run.path / "metrics.jsonl").open("wb") as file:
        file.writelines(lines)
    assert (run.path / "metrics.jsonl").stat().st_size > 100 << 20
    reader, tail = RunReader(run.path), MetricsTail()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    steps = [line["step"] for line in tail.lines(reader)]
    assert time.process_time() - began < 5  # of this process alone: others may be busy
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert steps[0] == 1 and steps[-1] == 250_000 and 2_000 < len(steps) <= 20_001
    assert max(b - a for a, b in itertools.pairwise(steps)) < 250_000 / 400
    add(run, 250_001)  # and what comes is read as ever
    assert tail.lines(reader)[-1]["step"] == 250_001


def test_a_line_without_end_is_not_kept(run):
    add(run, 1)
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "reward": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n')
    add(run, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps = [line["step"] for line in MetricsTail().lines(RunReader(run.path))]
    assert steps in ([1, 3], [1], [3])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_live_metrics_never_grow_beyond_what_is_kept(run, monkeypatch):
    monkeypatch.setattr("t2i_credit.app.tail.MOST_LINES", 10)
    reader, tail = RunReader(run.path), MetricsTail()
    for step in range(1, 60):
        add(run, step)
        steps = [line["step"] for line in tail.lines(reader)]
        assert steps == sorted(set(steps)) and steps[-1] == step and len(steps) <= 11
    assert steps[0] == 1


def test_of_very_many_names_of_metrics_some_are_kept(run):
    lines = [{"step": n, **{f"{n}/{k}": 1.0 for k in range(500)}} for n in range(1, 21)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = MetricsTail().lines(RunReader(run.path))
    assert len({name for line in found for name in line}) == 1000
    assert [line["step"] for line in found] == list(range(1, 21))
