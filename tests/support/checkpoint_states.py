"""What a checkpoint's state.json says, changed and signed again, as a program with other ideas would have written it. Holds no test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t2i_credit.run_folder import checkpoint as checkpoints


def rewritten(checkpoint: Path, change: Callable[[str], str]) -> None:
    """Changes the text of a checkpoint's state.json."""
    path = checkpoint / checkpoints.STATE
    state = json.loads(change(path.read_text("utf-8")))
    state.pop("digest", None)
    path.write_text(json.dumps(state | {"digest": checkpoints._digest_of(state)}))


def changed(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the values of a checkpoint's state.json, in place."""

    def edited(text: str) -> str:
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    rewritten(checkpoint, edited)
