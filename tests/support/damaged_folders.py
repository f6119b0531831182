"""What loading says of model folders that somebody changed. Holds no test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.errors import ModelError
from t2i_credit.models import load_pretrained


def refused(original: Path, tmp_path: Path, change: Callable[[Path], object]) -> str:
    """What loading says of a changed copy of the folder."""
    copy = tmp_path / "model"
    shutil.copytree(original, copy)
    change(copy)
    with pytest.raises(ModelError) as caught:
        load_pretrained(str(copy))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message.replace(f"{copy}/", "").replace(str(copy), "folder")


def edited(file: str, *section: str, **values: Any) -> Callable[[Path], object]:
    """Puts values into a JSON file, or into a section of it; those that are None it takes out."""

    def edit(copy: Path) -> None:
        content = json.loads((copy / file).read_text())
        inner = content
        for key in section:
            inner = inner[key]
        for key, value in values.items():
            if value is None:
                inner.pop(key, None)
            else:
                inner[key] = value
        (copy / file).write_text(json.dumps(content))

    return edit
