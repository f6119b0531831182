"""What libraries say of themselves, grouped and counted in the summary; under --newest, a deprecation in a call of ours fails.

Warnings of the project's own code are errors by pyproject.toml. This file knows which call is ours, and holds no test.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from repository import ROOT

OURS = ("t2i_credit", "test")  # what the names of our modules, and of the tests', begin with
KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
SAID = re.compile(r"deprecat|will be removed|no longer (be )?supported", re.IGNORECASE)
# modules through which a call only passes on its way
PASSED = (
    "torch.nn.modules.module",
    "torch.utils._contextlib",
    "functools",
    "contextlib",
    "logging",
    __name__,
)

_found: list[str] = []  # deprecations in calls of ours, since the last test


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--newest",
        action="store_true",
        help="deprecations in calls of ours fail, and the wheel is installed from the package index and tried",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("newest"):
        return
    for kind in KINDS:  # those that are raised outside Python and point to our line
        for name in OURS:
            config.addinivalue_line("filterwarnings", f"error::{kind.__name__}:{name}")
    warn, record = warnings.warn, logging.getLogRecordFactory()

    def watched_warn(
        message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **more: Any
    ) -> None:
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if issubclass(kind, KINDS) or SAID.search(str(message)):
            _found.extend(call_of_ours(f"{kind.__name__}: {message}", sys._getframe(1)))
        warn(message, category, stacklevel + 1, source, **more)

    def watched_record(*args: Any, **more: Any) -> logging.LogRecord:
        made = record(*args, **more)
        if made.levelno >= logging.WARNING and SAID.search(made.getMessage()):
            said = f"log of {made.name}: {made.getMessage()}"
            _found.extend(call_of_ours(said, sys._getframe(1)))
        return made

    warnings.warn = watched_warn  # type: ignore[assignment]
    logging.setLogRecordFactory(watched_record)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    yield
    if _found:
        said = "\n".join(dict.fromkeys(_found))
        _found.clear()
        pytest.fail(f"deprecated in a library, and called by us:\n{said}", pytrace=False)


def call_of_ours(said: str, frame: FrameType | None) -> list[str]:
    """[our line, and what is said of it] if the library that says it was called by our code; [] if by another library."""
    while frame is not None and _passes(_module(frame)):
        frame = frame.f_back
    library = _module(frame).partition(".")[0] if frame else ""
    while frame is not None and (
        _module(frame).partition(".")[0] == library or _passes(_module(frame))
    ):
        frame = frame.f_back
    if frame is None or not is_ours(frame) or library.startswith(OURS):
        return []
    place = Path(frame.f_code.co_filename).relative_to(ROOT)
    return [f"{place}:{frame.f_lineno}: {said}"]


def is_ours(frame: FrameType) -> bool:
    """Whether code of the repository runs there, and not a library's below it."""
    path = Path(frame.f_code.co_filename)
    return path.is_relative_to(ROOT) and "site-packages" not in path.parts


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _passes(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in PASSED)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Libraries' warnings: how often, which library, what."""
    counted = Counter(
        _spoken(report.message) for report in terminalreporter.stats.get("warnings", [])
    )
    if not counted:
        return
    terminalreporter.section("warnings, grouped")
    for (library, said), times in counted.most_common():
        terminalreporter.line(f"{times:5} x {library}: {said}")


def _spoken(message: str) -> tuple[str, str]:
    """Library and text of a warning as pytest formats it: `path:line: Category: text`."""
    place, _, said = message.partition(": ")
    library = re.search(r"site-packages/([^/.]+)", place)
    first = said.strip().splitlines()[0] if said.strip() else message
    return library[1] if library else place, first
