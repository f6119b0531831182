"""The compare tab without a browser: which runs are one method, what is chosen at first, bars and pictures."""

from __future__ import annotations

import json

import pytest
from app_toys import PROBE, PROMPT, G, write_toy_run, write_toy_step

from t2i_credit.app import compare
from t2i_credit.app.methods import methods_of
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.writer import RunWriter


def test_runs_that_differ_in_the_seed_alone_are_one_method_with_a_band(tmp_path):
    for seed in (0, 1):
        write_toy_run(tmp_path / f"gcpo-s{seed}", seed=seed, steps=(9,))
    shelf = RunShelf(tmp_path)
    value = compare.curves_value([shelf.open(f"gcpo-s{seed}") for seed in (0, 1)], "reward")
    curve = value["figures"][0]
    assert [t["name"] for t in curve["data"] if t["showlegend"]] == ["gcpo, 2 seeds"]
    assert any(trace.get("fill") == "tonexty" for trace in curve["data"])


def test_the_same_prompt_stands_side_by_side_on_one_scale(tmp_path):
    for name in ("grpo", "gcpo"):
        write_toy_run(tmp_path / name, steps=(9,))
    shelf = RunShelf(tmp_path)
    readers = [shelf.open("grpo"), shelf.open("gcpo")]
    assert compare.common_prompts(shelf, readers) == [PROBE, PROMPT]  # probes first
    shown = compare.pictures_value(shelf, readers, PROBE)
    rows = shown["groups"]
    assert [row["prompt"] for row in rows] == ["grpo", "gcpo"]
    assert rows[0]["scale"] == rows[1]["scale"] and len(rows[0]["samples"]) == G
    assert shown["map"] == "token_advantages"


def test_where_one_run_pushes_nothing_all_rows_show_their_credit(tmp_path):
    for name in ("grpo", "gcpo"):
        write_toy_run(tmp_path / name, steps=(9,))
    write_toy_step(RunWriter(tmp_path / "gcpo"), 10, alike=True)
    shelf = RunShelf(tmp_path)
    readers = [shelf.open("grpo"), shelf.open("gcpo")]
    assert compare.pictures_value(shelf, readers, PROBE)["map"] == "credit"
    assert compare.pictures_value(shelf, readers[:1], PROBE)["map"] == "token_advantages"


def test_bars_of_a_method_are_the_mean_over_its_seeds_with_a_t_interval(tmp_path):
    for seed, correct in ((0, 0.4), (1, 0.6)):
        path = write_toy_run(tmp_path / f"gcpo-seed{seed}", seed=seed, steps=(9,))
        report = path / "evaluations" / "train-cfg2.json"
        found = json.loads(report.read_text())
        for row in found["summary"].values():
            row["correct"] = correct
        report.write_text(json.dumps(found))
    shelf = RunShelf(tmp_path)
    (method,) = methods_of([shelf.open(f"gcpo-seed{seed}") for seed in (0, 1)])
    row = method.evaluations()["train-cfg2"]["overall"]
    # t(1) = 12.706, standard deviation 0.1414, / sqrt(2): wider than all shares, so cut at 0 and 1
    assert row == {"correct": pytest.approx(0.5), "low": 0.0, "high": 1.0}


def test_all_seeds_of_the_newest_methods_are_chosen_at_first(tmp_path):
    for number in range(5):
        for seed in (0, 1):
            path = write_toy_run(tmp_path / f"{'abcde'[number]}-seed{seed}", seed=seed, steps=())
            with open(path / "config.yaml", "a") as config:
                config.write(f"further: {number}\n")
    shelf = RunShelf(tmp_path)
    names = [status.path.name for status in shelf.statuses()]
    chosen = compare.first_methods(shelf, names)
    assert len(chosen) == 8 and {name[0] for name in chosen} == {name[0] for name in names[:8]}


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (("grpo-seed100", "grpo-seed101"), "grpo, 2 seeds"),
        (("7", "8"), "7, 2 seeds"),
        (("one",), "one"),
    ],
)
def test_a_method_is_called_after_its_runs_without_their_seeds(tmp_path, names, called):
    for seed, name in enumerate(names):
        write_toy_run(tmp_path / name, seed=seed, steps=())
    shelf = RunShelf(tmp_path)
    assert [method.name for method in methods_of([shelf.open(n) for n in names])] == [called]
