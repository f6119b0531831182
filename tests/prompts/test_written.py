"""Paths with `~` and variables: what they become, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2i_credit.errors import UserError
from t2i_credit.prompts.written import expanded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("~", "/home/me"),
        ("~/runs", "/home/me/runs"),
        ("${HOME}/runs", "/home/me/runs"),
        ("$DATA/$DATA.txt", "/data//data.txt"),
        ("a/~/b", "a/~/b"),  # as in a shell, only at the beginning
        ("owner/name", "owner/name"),
        ("hf://datasets/a/b/c.jsonl", "hf://datasets/a/b/c.jsonl"),
        ("costs 5 $", "costs 5 $"),
    ],
)
def test_home_and_variables_stand_for_what_a_shell_would_put_there(path: str, found: str) -> None:
    assert expanded(path) == found


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("$NOWHERE/x", "'$NOWHERE/x': the variable NOWHERE is not set"),
        ("${NOWHERE}", "'${NOWHERE}': the variable NOWHERE is not set"),
        ("~nobody-here/x", "'~nobody-here/x': there is no user 'nobody-here'"),
    ],
)
def test_an_unknown_variable_or_user_is_refused(path: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        expanded(path)
    assert str(caught.value) == problem


def test_a_file_of_this_very_name_is_taken_as_it_is(home: Path) -> None:
    (home / "$NOWHERE.txt").touch()
    assert expanded("$NOWHERE.txt") == "$NOWHERE.txt"
