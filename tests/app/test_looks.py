"""What the app's charts, palettes and empty states show, without a browser."""

from __future__ import annotations

import pytest
from app_toys import compared, notice_of, write_toy_run

from t2i_credit.app import compare, evaluation
from t2i_credit.app.charts import training_figures
from t2i_credit.app.figures import task_bars
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.pace import WINDOW


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    write_toy_run(root / "one")
    return RunShelf(root)


def figure_of(metrics, title):
    (found,) = [figure for figure in training_figures(metrics) if figure["title"] == title]
    return found


def test_a_held_out_part_has_a_chart_of_its_own_that_shades_where_training_warned():
    metrics = [
        {"step": step, "reward": 0.5, "reward/geneval": 0.5, "heldout/clip": 0.6 + step / 100}
        | {"heldout_falls": float(step in (3, 4, 7))}
        for step in range(1, 9)
    ]
    shown = figure_of(metrics, "Held out: clip")
    assert "never trained on" in shown["says"] and "shaded" in shown["says"]
    areas = [(area["x0"], area["x1"]) for area in shown["layout"]["shapes"]]
    assert areas == [(2.5, 4.5), (6.5, 7.5)]
    calm = figure_of([{**row, "heldout_falls": 0.0} for row in metrics], "Held out: clip")
    assert "shaded" not in calm["says"] and not calm["layout"]["shapes"]
    assert all(figure["title"] != "Reward parts" for figure in training_figures(metrics))


def test_of_several_held_out_parts_the_one_that_fell_is_shaded_alone():
    def row(step):
        wobble = 0.01 * (-1) ** step
        moved = {
            "reward": step + wobble,
            "heldout/up": step - wobble,
            "heldout/down": wobble - step,
        }
        return {"step": step, **moved, "heldout_falls": float(step == WINDOW)}

    metrics = [row(step) for step in range(1, WINDOW + 1)]
    up, down = (figure_of(metrics, f"Held out: {name}") for name in ("up", "down"))
    assert not up["layout"]["shapes"] and "shaded" not in up["says"]
    assert len(down["layout"]["shapes"]) == 1 and "and down fell" in down["says"]


def test_what_is_smoothed_is_named_so_in_the_table_and_a_critic_has_a_chart():
    known = {"reward": 0.5, "reward_spread": 0.2, "critic/explained": 0.1, "critic/weight": 0.0}
    metrics = [{"step": step, **known} for step in range(1, 5)]
    columns = [t.get("meta", t["name"]) for t in figure_of(metrics, "Reward")["data"]]
    assert [name for name in columns if "smoothed" not in name] == ["reward, this step"]
    critic = figure_of(metrics, "Critic")["data"]
    assert [t["name"] for t in critic if t["showlegend"]] == ["explained", "weight"]


@pytest.mark.parametrize(
    ("parts", "highest"),
    [({"reward/geneval": 0.9}, 1.0), ({"reward/clip": 0.9}, 1.4), ({"reward/geneval": 0.3}, 1.4)],
)
def test_the_spread_of_a_reward_that_ends_at_1_is_not_drawn_above_it(parts, highest):
    metrics = [{"step": step, "reward": 0.9, "reward_spread": 0.5, **parts} for step in (1, 2)]
    upper = figure_of(metrics, "Reward")["data"][1]
    assert upper["fill"] == "tonexty" and upper["y"] == [highest, highest]


def test_bars_have_whiskers_only_where_an_interval_is_known(shelf):
    known = {"overall": {"correct": 0.5, "low": 0.25, "high": 0.75}}
    unknown = {"overall": {"correct": 0.5}}
    before, after = task_bars({"before": unknown, "after": known}, "")["data"]
    assert "error_y" not in before
    assert after["error_y"]["array"] == [0.25] and after["error_y"]["arrayminus"] == [0.25]


def test_an_evaluation_shows_the_interval_of_the_score_before(shelf):
    result = shelf.open("one").evaluation("train-cfg2")
    for row in result["paired"].values():
        row |= {"before_low": 0.125, "before_high": 0.5}
    before = evaluation.scores(result)[0]["figures"][0]["data"][0]
    assert before["name"] == "before" and before["y"] == [0.25] * 3
    assert before["error_y"]["array"] == [0.25] * 3
    assert before["error_y"]["arrayminus"] == [0.125] * 3


def test_a_curve_that_no_chosen_run_has_says_so_in_its_frame(shelf):
    shown = compared(shelf, ["one"], "kl")[0]["figures"][0]
    assert not shown["data"]
    assert shown["layout"]["annotations"][0]["text"] == "No chosen run has this curve."


def test_no_chosen_run_stays_none_and_the_first_opening_chooses(shelf):
    curves, _, pictures = compared(shelf, [])
    assert "No run is chosen" in notice_of(curves) and pictures["groups"] == []
    runs, *states = (object() for _ in range(5))
    tab = compare.CompareTab(shelf, [], runs, {}, states)
    opened = tab.first(None, ["one"], [], "reward", 0, "step", None, None)
    assert opened[runs].value == ["one"] and opened[states[1]] == (("one",), (True,))


def test_a_run_that_cannot_be_opened_is_named_above_the_curves(tmp_path):
    write_toy_run(tmp_path / "one")
    shelf = RunShelf(tmp_path)
    (tmp_path / "one").rename(tmp_path.parent / f"{tmp_path.name}-gone")
    assert "one" in compared(shelf, ["one"])[0]["said"]
