"""A truth measurement of text as tables and files."""

import json
import math

import pytest

from t2i_credit.errors import RunError
from t2i_credit.measure.truth.report import about, tables, write_report

SPECIFIC = {"auroc": [0.75, 0.7, 0.8], "against_filler": [0.9, 0.8, 1.0], "lift": [2.0, 1.5, 2.5]}
EFFECT = {"all": [0.5, 0.4, 0.6], "right": [0.25, 0.2, 0.3], "wrong": [math.nan] * 3}
FOUND = {
    "model": "arithmetic",
    "samples": 8,
    "correct": 0.375,
    "specificity": {
        "right": {"samples": 3, "share": [0.125, 0.1, 0.15], "assigners": {"random": SPECIFIC}},
        "wrong": {"samples": 0, "share": [math.nan] * 3, "assigners": {"random": SPECIFIC}},
    },
    "causality": {
        "changeable": 4.5,
        "assigners": {"random": {"highest": EFFECT, "lowest": EFFECT, "ratio": [1.0, 1.0, 1.0]}},
    },
}


def test_the_tables_hold_every_figure_and_a_dash_where_there_is_none():
    found = tables(FOUND)
    assert list(found) == ["specificity, right answers", "specificity, wrong answers", "causality"]
    assert found["specificity, right answers"] == [
        {
            "credit": "random",
            "AUROC of the deciding digits": "0.750 [0.700, 0.800]",
            "AUROC against filler words": "0.900 [0.800, 1.000]",
            "credit of a deciding digit, times the mean": "2.000 [1.500, 2.500]",
        }
    ]
    (row,) = found["causality"]
    assert row["effect, highest credit"] == "0.500 [0.400, 0.600]"
    assert row["of right answers"] == "0.250 [0.200, 0.300]"
    assert row["of wrong answers"] == "-"


def test_one_line_says_how_much_was_measured():
    assert about(FOUND) == (
        "8 answers, 0.375 of them right; a deciding step in 3 right ones on 0.125 of their tokens; a deciding step in "
        "0 wrong ones; 4.5 tokens of an answer can be changed. 95% intervals in brackets."
    )


def test_both_files_are_written_and_a_place_that_is_no_folder_is_refused(tmp_path):
    write_report(FOUND, tmp_path / "truth")
    text = (tmp_path / "truth" / "truth.md").read_text(encoding="utf-8")
    assert text.startswith("# Credit truth of arithmetic\n") and "| random | 0.750 [0.700" in text
    saved = json.loads((tmp_path / "truth" / "truth.json").read_text(encoding="utf-8"))
    assert saved["model"] == "arithmetic" and saved["samples"] == 8
    assert saved["causality"]["assigners"]["random"]["highest"]["wrong"] == [None] * 3
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(FOUND, tmp_path / "file")
