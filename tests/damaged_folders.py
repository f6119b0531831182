"""What loading says of model folders that somebody changed. Holds no test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

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
