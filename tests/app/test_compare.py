"""The compare tab without a browser: which runs are one method, what is chosen at first, bars and pictures."""

from __future__ import annotations

import json

import pytest
from app_toys import PROBE, PROMPT, G, write_toy_run, write_toy_step

from t2i_credit.app import compare, compared
from t2i_credit.app.methods import differences, line_styles, methods_of
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.writer import RunWriter


def test_runs_that_differ_in_the_seed_alone_are_one_method_with_a_band(tmp_path):
    for seed in (0, 1):
        write_toy_run(tmp_path / f"gcpo-s{seed}", seed=seed, steps=(9,))
    shelf = RunShelf(tmp_path)
    value = compared.curves_value(shelf, [shelf.open(f"gcpo-s{seed}") for seed in (0, 1)], "reward")
    curve = value["figures"][0]
    assert [t["name"] for t in curve["data"] if t["showlegend"]] == ["gcpo, 2 seeds"]
    assert any(trace.get("fill") == "tonexty" for trace in curve["data"])


def test_the_same_prompt_stands_side_by_side_on_one_scale(tmp_path):
    for name in ("grpo", "gcpo"):
        write_toy_run(tmp_path / name, steps=(9,))
    shelf = RunShelf(tmp_path)
    readers = [shelf.open("grpo"), shelf.open("gcpo")]
    assert compared.common_prompts(shelf, readers) == [PROBE, PROMPT]  # probes first
    shown = compared.pictures_value(shelf, readers, PROBE)
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
    assert compared.pictures_value(shelf, readers, PROBE)["map"] == "credit"
    assert compared.pictures_value(shelf, readers[:1], PROBE)["map"] == "token_advantages"


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


@pytest.fixture
def methods(tmp_path):
    """Two methods, the first of two seeds; the second has no evaluation and another credit."""
    for seed in (0, 1):
        write_toy_run(tmp_path / f"gcpo-s{seed}", seed=seed)
    path = write_toy_run(tmp_path / "grpo", steps=(1, 9), evaluation=False)
    config = (path / "config.yaml").read_text().replace("guidance_contrast", "<b>uniform</b>")
    (path / "config.yaml").write_text(config)
    return RunShelf(tmp_path)


def readers_of(shelf, *names):
    return [shelf.open(name) for name in names]


def test_a_method_has_one_colour_in_curves_bars_table_and_pictures(methods):
    chosen = readers_of(methods, "grpo", "gcpo-s0", "gcpo-s1")
    curve, bars = compared.curves_value(methods, chosen, "reward")["figures"]
    lines = {t["name"]: t["line"]["color"] for t in curve["data"] if t["showlegend"]}
    assert bars["data"][0]["name"] == "gcpo, 2 seeds" and len(set(lines.values())) == 2
    assert bars["data"][0]["marker"]["color"] == lines["gcpo, 2 seeds"]
    rows = compared.pictures_value(methods, chosen, PROBE, 9)["groups"]
    assert {row["prompt"]: row["colour"] for row in rows} == {
        "grpo": lines["grpo"],
        "gcpo-s0": lines["gcpo, 2 seeds"],
    }
    table = compared.difference_table(chosen)
    assert all(colour in table for colour in lines.values())


def test_a_method_keeps_its_colour_when_another_is_taken_away_and_none_has_two(tmp_path):
    names = ["demo", *"abcdefghijk"]
    for number, name in enumerate(names):
        path = write_toy_run(tmp_path / name, steps=(), evaluation=False)
        with open(path / "config.yaml", "a") as config:
            config.write(f"further: {number}\n")
    every = methods_of(readers_of(RunShelf(tmp_path), *names))
    styles = line_styles(every)
    assert len({tuple(style.values()) for style in styles.values()}) == len(names)
    assert line_styles(every[:3]) == {name: styles[name] for name in names[:3]}
    wanted = {m.name: line_styles([m])[m.name]["color"] for m in every[:3]}
    assert len(set(wanted.values())) == 3  # "demo", "a" and "b" want colours of their own
    assert all(line_styles([m])[m.name] == styles[m.name] for m in every[:3])


def test_a_method_keeps_its_colour_wherever_a_newer_run_is_listed(tmp_path):
    names = "abcdefgh"
    for number, name in enumerate(names):
        path = write_toy_run(tmp_path / name, steps=(), evaluation=False)
        with open(path / "config.yaml", "a") as config:
            config.write(f"further: {number}\n")
        (path / "environment.json").write_text(
            json.dumps({"format": 1, "started": f"2026-01-0{number + 1}"})
        )
    every = methods_of(readers_of(RunShelf(tmp_path), *names))
    styles = line_styles(every)
    assert line_styles(every[::-1]) == styles
    assert all(line_styles(every[n::-1]).items() <= styles.items() for n in range(len(names)))


def test_keys_of_the_critic_do_not_apply_to_a_run_without_one(tmp_path):
    for name, credit in (("plain", "uniform"), ("valued", "value")):
        path = write_toy_run(tmp_path / name, steps=(), evaluation=False)
        config = (path / "config.yaml").read_text().replace("guidance_contrast", credit)
        (path / "config.yaml").write_text(config + "critic: {kind: head}\n")
    chosen = methods_of(readers_of(RunShelf(tmp_path), "plain", "valued"))
    assert differences(chosen)["critic.kind"] == ["", "head"]
    assert "critic.kind" not in differences(chosen[:1])


def test_what_differs_stands_in_a_table_as_text(methods):
    table = compared.difference_table(readers_of(methods, "grpo", "gcpo-s0", "gcpo-s1"))
    assert "credit.<wbr>name" in table and "&lt;b&gt;uniform" in table and "<b>uniform" not in table
    assert "model.<wbr>name" not in table and "<td>0, 1</td>" in table  # what is equal is left out
    alike = compared.difference_table(readers_of(methods, "gcpo-s0", "gcpo-s1"))
    assert "Nothing but the seed" in alike


def test_pictures_come_from_one_step_and_what_is_left_out_is_said(methods):
    names = ["grpo", "gcpo-s0", "gcpo-s1"]
    _, newest = compare.pictures_of(methods, names, PROBE, None)
    assert (newest["steps"], newest["step"]) == ([1, 9], 9)  # grpo has not recorded step 5
    assert "gcpo-s1 (further seeds of gcpo-s0)" in newest["told"]
    _, first = compare.pictures_of(methods, names, PROBE, 1)
    assert first["step"] == 1 and all("step 1," in row["says"] for row in first["groups"])
    write_toy_step(RunWriter(methods.root / "grpo"), 1, ("a green circle", "a red square"))
    _, without = compare.pictures_of(methods, names, PROBE, 1)
    assert [row["prompt"] for row in without["groups"]] == ["gcpo-s0"]
    assert "grpo has not recorded this prompt at step 1" in without["told"]


@pytest.mark.parametrize(
    ("axis", "named", "last"),
    [("step", "step", 9.0), ("images", "images", 576.0), ("time", "seconds", 18.0)],
)
def test_a_curve_stands_along_steps_images_or_time(methods, axis, named, last):
    path = methods.root / "grpo" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**one, "samples": 64 * one["step"]}) + "\n" for one in lines)
    )
    shown = compare.curves_of(methods, ["grpo"], "entropy", 1, axis)["figures"][0]
    (line,) = shown["data"]
    assert line["x"][-1] == last and shown["layout"]["xaxis"]["title"]["text"] == named
    assert line["y"][-1] == pytest.approx(4.0)  # 5 - 9 / 9, not smoothed


def test_smoothing_over_more_steps_follows_less(methods):
    ends = [
        compare.curves_of(methods, ["grpo"], "reward", over, "step")["figures"][0]["data"][0]["y"][
            -1
        ]
        for over in (1, 10, 100)
    ]
    assert ends[0] == 1.0 and ends[0] > ends[1] > ends[2]


def test_every_metric_of_the_runs_can_be_chosen(methods):
    path = methods.root / "grpo" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 10, "reward/<i>": 0.5, "say": "no number"}\n')
    offered = compared.curve_names(methods, readers_of(methods, "grpo", "gcpo-s0"))
    assert offered[:2] == ["reward", "reward_spread"] and "reward/<i>" in offered
    assert "step" not in offered and "say" not in offered
    shown = compare.curves_of(methods, ["grpo", "gcpo-s0"], "reward/<i>", 0, "step")
    assert len(shown["figures"][0]["data"]) == 1 and "gcpo-s0" in shown["told"]


def test_signs_change_with_what_they_stand_for_alone(methods):
    def signs():
        return compare.signs(methods, ["grpo"], ["grpo"], "reward", 0, "step", PROBE, None)

    begun = signs()
    assert signs() == begun
    with (methods.root / "grpo" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "reward": 1.0}\n')
    longer = signs()
    assert [a == b for a, b in zip(begun, longer, strict=True)] == [True, True, False, True]
    write_toy_step(RunWriter(methods.root / "grpo"), 10)
    assert [a == b for a, b in zip(longer, signs(), strict=True)] == [True, True, True, False]
