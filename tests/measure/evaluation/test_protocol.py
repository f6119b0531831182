"""Protocols: ranges, what is unknown of images from elsewhere, comparison, settings as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from t2i_credit.errors import UserError
from t2i_credit.measure.evaluation.protocol import (
    JUDGING,
    SAMPLING,
    Protocol,
    defaults,
    parse_settings,
)


def test_every_setting_samples_judges_or_counts() -> None:
    assert {*SAMPLING, *JUDGING, "images_per_prompt", "batch_size"} == set(
        Protocol(cfg_scale=2.0).to_dict()
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("template", "a photo"),
        ("template", "{prompt} {prompt}"),
        ("detector", ""),
        ("threshold", 1.5),
        ("counting_threshold", -0.1),
        ("max_objects", 0),
        ("nms_threshold", 2),
        ("position_threshold", float("nan")),
    ],
)
def test_a_setting_of_the_judge_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{key}: .*; allowed is ") as caught:
        Protocol(**{"cfg_scale": 2.0, key: value})
    assert "\n" not in str(caught.value)


def test_of_images_from_elsewhere_all_of_the_sampling_is_unknown_or_nothing() -> None:
    foreign = Protocol.of_images(images_per_prompt=2, threshold=0.5)
    assert [getattr(foreign, name) for name in SAMPLING] == [None] * len(SAMPLING)
    assert (foreign.images_per_prompt, foreign.threshold) == (2, 0.5)
    with pytest.raises(UserError, match="temperature: None"):
        Protocol(cfg_scale=2.0, temperature=None)


def test_protocols_differ_by_what_decides_about_scores_and_is_known() -> None:
    ours = Protocol(cfg_scale=2.0)
    assert ours.difference(replace(ours, batch_size=1)) == ""
    assert ours.difference(replace(ours, seed=1)) == "seed is 0 before and 1 after"
    assert ours.difference(Protocol.of_images()) == Protocol.of_images().difference(ours) == ""
    other = Protocol.of_images(nms_threshold=0.5)
    assert ours.difference(other) == "nms_threshold is None before and 0.5 after"


def test_numbers_of_settings_are_those_of_yaml_1_2() -> None:
    found = parse_settings(["seed=010", "threshold=1e-1", "max_objects=12:30"])
    assert found == {"seed": 10, "threshold": 0.1, "max_objects": "12:30"}


def test_settings_are_read_from_text() -> None:
    found = parse_settings(["threshold=0.5", "nms_threshold=null", "template=see: {prompt}"])
    assert found == {"threshold": 0.5, "nms_threshold": None, "template": "see: {prompt}"}
    assert defaults({**found, "seed": 0}) == {"threshold": 0.5, "template": "see: {prompt}"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("treshold=0.5", "did you mean 'threshold'"),
        ("threshold", "not a setting of the protocol=value"),
        ("xyz=1", "allowed are images_per_prompt"),
        ("seed=[", r"--protocol 'seed=\[': while parsing a flow node"),
        ("seed=&a 1", r"--protocol 'seed=&a 1': & and \* are not supported"),
    ],
)
def test_settings_that_are_none_are_refused_in_one_line(text: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        parse_settings([text])
    assert "\n" not in str(caught.value)
