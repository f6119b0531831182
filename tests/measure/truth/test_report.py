"""A truth measurement as tables: what is measured is shown, and what an older one lacks is left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from t2i_credit.measure.truth.report import about, markdown, tables, write_report

ROW = {"snr": [0.02, 0.01, 0.03], "direction": [1.0, 0.9, 1.1], "large": None}
OLD: dict[str, Any] = {  # as measurements were written before they had a ratio
    "model": "shapes",
    "policy": "guided",
    "cfg_scale": 2.0,
    "left_out": {},
    "gradients": {
        "batches": 3,
        "samples": 4,
        "assigners": {"uniform": ROW, "one": {**ROW, "snr_ahead": [0.01, 0.0, 0.02]}},
    },
}


def with_rows(**more: Any) -> dict[str, Any]:
    rows = OLD["gradients"]["assigners"]
    changed = {"uniform": rows["uniform"], "one": {**rows["one"], **more}}
    return {**OLD, "gradients": {**OLD["gradients"], "assigners": changed}}


def test_gradients_are_shown_with_their_ratio_and_both_cosines() -> None:
    found = with_rows(
        times_uniform=[2.0, 1.5, 2.7], cosine=[0.02, 0.01, 0.03], large=[0.2, 0.1, 0.3]
    )
    uniform, one = tables(found)["gradients"]
    assert one["times uniform"] == "2.000 [1.500, 2.700]" and uniform["times uniform"] == "-"
    assert one["cosine of two batches"] == "0.02 [0.01, 0.03]"
    assert one["cosine with uniform's of all other batches"] == "0.200 [0.100, 0.300]"
    assert "| times uniform |" in markdown(found["model"], about(found), tables(found))


def test_a_number_without_an_interval_is_shown_and_none_is_a_dash() -> None:
    for measured, said in (
        ([2.0, math.nan, math.nan], "2.000 [no interval]"),
        ([0.0, None, None], "0 [no interval]"),
        ([math.inf, math.nan, math.nan], "-"),
        ([None, None, None], "-"),
    ):
        _, one = tables(with_rows(times_uniform=measured))["gradients"]
        assert one["times uniform"] == said


def test_what_holds_by_construction_has_no_interval(tmp_path: Path) -> None:
    share, drop = [0.5, 0.05, 0.95], [0.0, None, None]
    place = {"auroc": share, "mass": share, "pointing": share}
    drops = {"highest": drop, "lowest": drop, "ratio": [2.0, 2.0, math.inf]}
    ways = {"kept": {"changed": 1.0, "assigners": {"random": drops, "one": drops}}}
    found = {
        **{name: value for name, value in OLD.items() if name != "gradients"},
        "localisation": {
            "area": share,
            "samples": 4,
            "assigners": {"uniform": place, "one": place},
        },
        "causality": {"positive": ways, "negative": ways},
    }
    uniform, one = tables(found)["localisation"]
    assert uniform["AUROC"] == "0.5 by construction" and one["AUROC"] == "0.500 [0.05, 0.950]"
    assert uniform["share of credit on objects"] == "0.500 [0.05, 0.950]"
    random, one = tables(found)["causality, positive redraw, others kept"]
    assert random["times random"] == "1 by construction"
    assert one["times random"] == "2.000 [2.000, inf]"
    assert random["drop, highest credit"] == "0 [no interval]"
    write_report(found, tmp_path)
    assert (tmp_path / "truth.png").stat().st_size > 1000


def test_a_measurement_of_before_is_still_shown() -> None:
    uniform, one = tables(OLD)["gradients"]
    assert one["ahead of uniform"] == "0.01 [0, 0.02]" and uniform["ahead of uniform"] == "-"
    assert "times uniform" not in one
    assert about(OLD) == (
        "policy guided, guidance 2; 3 batches of 4 images. 95% intervals in brackets."
    )


def test_the_line_says_who_found_the_objects_and_what_was_left_out() -> None:
    found = {
        **OLD,
        "detector": "owlv2",
        "left_out": {"distribution_guided": "measure a run"},
        "localisation": {"area": [0.25, 0.2, 0.3], "samples": 7, "assigners": {}},
    }
    line = about(found)
    assert "objects (found by owlv2) on 0.25 of the tokens in 7 images" in line
    assert "left out: distribution_guided (measure a run)" in line
