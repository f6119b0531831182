"""A tiny checkpoint for the tests of text."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_texts import write_checkpoint  # needs the pip extra text

    return write_checkpoint(tmp_path_factory.mktemp("qwen"))
