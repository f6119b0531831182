"""YAML as version 1.2 has it: which texts are numbers, truth values and null, and that what is written reads back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from t2i_credit.yaml_text import parse_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),  # 1.1: octal, 8
        ("0o10", 8),
        ("0x1F", 31),
        ("+3", 3),
        ("-0", 0),
        ("12:30", "12:30"),  # 1.1: base 60, 750
        ("1_000", "1_000"),  # 1.1: 1000
        ("0b11", "0b11"),  # 1.1: 3
        ("1e-3", 0.001),  # 1.1: a text
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("12:30.5", "12:30.5"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("None", "None"),
        ("~/runs", "~/runs"),
        ("2024-01-01", "2024-01-01"),
        ("'010'", "010"),
    ],
)
def test_a_plain_text_is_what_the_core_schema_of_version_1_2_says(text: str, value: Any) -> None:
    found = parse_yaml(text.encode(), "x")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        *("010", "0o10", "12:30", "1_000", "1e-3", "no", "~", "", "null", "2024-01-01", "=", ".5"),
        *("a\u2028b\x85", "a\nb", 1e-5, 1e16, 5e-324, -0.0, 10**30, True, None, [[], {}]),
    ],
)
def test_what_is_written_reads_back_in_either_version(value: Any, flow: bool) -> None:
    text = write_yaml({"key": value}, flow=flow)
    found = parse_yaml(text.encode(), "x")["key"]
    assert (found, type(found)) == (value, type(value))
    if value != "=":  # PyYAML alone knows no constructor for it
        assert yaml.safe_load(text) == {"key": value}


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: 1", "x") == {"a": 1}


def test_a_list_that_stands_twice_is_written_twice() -> None:
    both = [1]
    assert parse_yaml(write_yaml({"a": both, "b": both}).encode(), "x") == {"a": [1], "b": [1]}
