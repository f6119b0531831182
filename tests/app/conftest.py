"""Shelves of toy runs for the tests of the app: one for a whole file, and one that a test may change."""

from __future__ import annotations

import pytest
from app_toys import (
    write_toy_run,
)

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
