"""Modules and objects of a user's own that fail as they are imported or looked at, and what functions may raise: one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2i_credit.config.messages import KeyProblem
from t2i_credit.config.plugins import find_plugin
from t2i_credit.errors import TrainingError
from t2i_credit.interfaces import plugin_errors, plugin_values

MODULES = {
    "def f(:": "SyntaxError: ",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "raise BaseException('two\\nlines')": "BaseException: two lines",
    "1 / 0": "ZeroDivisionError: division by zero",
    "(" * 3000 + ")" * 3000: "Error: ",
}


@pytest.mark.parametrize("number", range(len(MODULES)))
def test_a_module_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / f"broken_{number}.py").write_text(list(MODULES)[number])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyProblem) as caught:
        find_plugin(f"broken_{number}:f", {}, "credit.name")
    said = str(caught.value)
    assert f"credit.name: broken_{number}:f: broken_{number} cannot be imported (" in said
    assert list(MODULES.values())[number] in said and "\n" not in said


def test_an_object_that_raises_as_it_is_looked_at_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "class M:\n def __getattr__(self, name):\n  raise RuntimeError('a\\nb')\nm = M()\n"
    (tmp_path / "touchy.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyProblem, match=r"touchy:m: cannot be looked at \(RuntimeError: a b\)"):
        find_plugin("touchy:m", {}, "credit.name")


@pytest.mark.parametrize("error", [BaseException("x"), SystemExit(7), ValueError("x")])
def test_whatever_a_function_raises_is_one_line(error: BaseException) -> None:
    said = f"reward a:b: raised {type(error).__name__}: "
    with pytest.raises(TrainingError, match=said), plugin_errors("reward a:b"):
        raise error


def test_who_stops_a_command_is_not_blamed_on_a_function() -> None:
    with pytest.raises(KeyboardInterrupt), plugin_errors("reward a:b"):
        raise KeyboardInterrupt


def test_numbers_too_large_for_any_tensor_are_one_line() -> None:
    with pytest.raises(TrainingError, match="reward a:b: returned "):
        plugin_values([10**400], (1,), "reward a:b")
