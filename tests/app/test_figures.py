"""Curves and bars: smoothing, thinning, bands and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from t2i_credit.app import charts, figures


def test_smoothing_keeps_a_constant_and_bridges_gaps():
    values = np.full(200, 0.3)
    values[[0, 7, 50]] = np.nan
    smoothed = figures.smooth(values)
    assert np.isnan(smoothed[0])
    np.testing.assert_allclose(smoothed[1:], 0.3)


def test_long_runs_are_thinned_and_keep_their_ends():
    keep = figures.thinned(5000)
    assert len(keep) == figures.POINTS and (keep[0], keep[-1]) == (0, 4999)


def test_the_reward_band_is_one_spread_to_both_sides():
    metrics = [{"step": s, "reward": 0.5, "reward_spread": 0.2} for s in range(1, 5)]
    low, high, *_ = charts.reward_figure(metrics)["data"]
    assert low["y"] == pytest.approx([0.3] * 4) and high["y"] == pytest.approx([0.7] * 4)


def test_bars_carry_their_intervals():
    bars = figures.task_bars({"run": {"colors": {"correct": 0.5, "low": 0.4, "high": 0.7}}}, "")
    error = bars["data"][0]["error_y"]
    assert error["array"] == pytest.approx([0.2]) and error["arrayminus"] == pytest.approx([0.1])


@pytest.mark.parametrize(("level", "shown"), [(0.25, [0, 0.5]), (-2.0, [-4, 0]), (0.0, [-0.05, 1])])
def test_a_constant_curve_stands_in_the_middle_of_a_range_that_begins_at_0(level, shown):
    metrics = [{"step": step, "reward": level, "entropy": level} for step in range(1, 5)]
    for found in charts.training_figures(metrics):
        assert found["layout"]["yaxis"]["range"] == shown, found["title"]
        assert found["layout"]["xaxis"]["title"]["text"] == "step"
        assert found["layout"]["yaxis"]["title"]["text"]


def test_a_name_is_no_template_in_the_box_under_the_pointer():
    said = figures.line(np.arange(2.0), np.zeros(2), "<b>%{x}", "#000000", legend=False)
    assert said["hovertemplate"].count("%{") == 1 and "<b>" not in said["hovertemplate"]
