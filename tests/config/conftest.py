"""Files of configurations for the tests of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes x.yaml into the current folder, so that messages show a short name."""
    monkeypatch.chdir(tmp_path)

    def _write(content: str | bytes, name: str = "x.yaml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return _write
