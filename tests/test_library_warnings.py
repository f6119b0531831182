"""Whose call a deprecated one is: ours, or a library's that we have called."""

from __future__ import annotations

import sys
from typing import Any

from library_warnings import _spoken, call_of_ours


def function_of(module: str, body: str, **names: Any) -> Any:
    """`call()` as a module of that name would hold it."""
    space = {"__name__": module, **names}
    path = f"/env/site-packages/{module.replace('.', '/')}.py"
    exec(compile(f"def call():\n    {body}", path, "exec"), space)
    return space["call"]


def said() -> list[str]:
    return call_of_ours("FutureWarning: `old` goes", sys._getframe(1))


def test_a_call_of_ours_is_named_by_file_and_line() -> None:
    (line,) = function_of("transformers.llama", "return said()", said=said)()
    assert line.startswith("tests/test_library_warnings.py:")
    assert line.endswith(": FutureWarning: `old` goes")


def test_a_call_that_passes_through_torch_is_ours() -> None:
    inner = function_of("transformers.llama", "return said()", said=said)
    assert len(function_of("torch.nn.modules.module", "return inner()", inner=inner)()) == 1


def test_a_library_that_calls_another_is_not_us() -> None:
    inner = function_of("transformers.llama", "return said()", said=said)
    assert function_of("trl.trainer", "return inner()", inner=inner)() == []


def test_the_library_and_the_text_of_a_warning_are_read_from_what_pytest_shows() -> None:
    shown = "/env/lib/python3.11/site-packages/torch/nn/modules/module.py:9: FutureWarning: `old` goes\n  code"
    assert _spoken(shown) == ("torch", "FutureWarning: `old` goes")
