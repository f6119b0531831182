"""From the name of a language model to the model, where the name may be that of a run on text. Trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..api.models import run_of
from ..errors import RunError
from ..files import read_json
from ..run_folder.checkpoint import load_checkpoint
from ..run_folder.reader import RunReader


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
    from ..models.text_model import load_text_model

    run = run_of_text(name)
    if run is None:
        return load_text_model(name)
    folder = load_checkpoint(run[0] / "checkpoints", run[1]).model_folder
    assert folder is not None, name  # text models save themselves
    return load_text_model(folder)


def is_text_model(name: str) -> bool:
    """Whether the name is that of an embedded text model, of a run on text, or of a folder with a causal language model."""
    from ..models import TEXT_MODELS

    if name in TEXT_MODELS or run_of_text(name):
        return True
    try:
        config = read_json(Path(name) / "config.json")
        return any(kind.endswith("ForCausalLM") for kind in config.get("architectures") or [])
    except (
        OSError,
        ValueError,
        AttributeError,
        TypeError,
    ):  # whoever loads it says what is wrong with it
        return False
