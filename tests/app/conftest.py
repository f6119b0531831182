"""Shelves of toy runs for the tests of the app, for a whole file or for one test, and the app in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_toys import served, write_toy_run

from t2i_credit.app.runs import RunShelf


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    write_toy_run(root / "one")
    return RunShelf(root)


@pytest.fixture
def fresh(tmp_path):
    write_toy_run(tmp_path / "one")
    return RunShelf(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; skips where there is none. Of a module: while it lives, its event loop keeps others from running."""
    from app_browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Where the app serves the module's `runs`."""
    with served(runs) as facts:
        yield facts["address"]


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The app in the browser; fails the test if the browser complained."""
    from app_browser import visited

    with visited(browser, address) as opened:
        yield opened
