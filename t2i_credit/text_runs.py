"""From the name of a language model to the model, where the name may be that of a run on text. Trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .checkpoint import load_checkpoint
from .errors import RunError
from .loading import run_of
from .run_reader import RunReader


def run_of_text(name: str) -> tuple[Path, int | None] | None:
    """The folder of a run on text that a name means, and the step it asks for; None if it is no such run."""
    run = run_of(name)
    try:
        return run if run and RunReader(run[0]).is_text() else None
    except RunError:  # whoever loads it says what is wrong with it
        return None


def load_text(name: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        name: an embedded one's, a model folder, or a run on text: its newest checkpoint, or run@STEP.

    Raises:
        ModelError: there is none, or it cannot be loaded.
        RunError: the run has no such checkpoint, or a damaged one.
    """
    from .models.text_model import load_text_model

    run = run_of_text(name)
    if run is None:
        return load_text_model(name)
    folder = load_checkpoint(run[0] / "checkpoints", run[1]).model_folder
    assert folder is not None, name  # text models save themselves
    return load_text_model(folder)
