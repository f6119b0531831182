"""Credit truth of a text model by name, as a report on disk. The measures are truth_text.py's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError, ModelError
from .text_runs import load_text, run_of_text

Progress = Callable[[int, int], None]


def is_text_model(name: str) -> bool:
    """Whether the name is that of an embedded text model, of a run on text, or of a folder with a causal language model."""
    from .models import TEXT_MODELS

    if name in TEXT_MODELS or run_of_text(name):
        return True
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        return any(kind.endswith("ForCausalLM") for kind in config.get("architectures") or [])
    except (OSError, ValueError, AttributeError):  # whoever loads it says what is wrong with it
        return False


def truth_of_text_model(
    model: str,
    *,
    credits: Sequence[str] = (),
    unused: Sequence[str] = (),
    out: Path,
    progress: Progress = lambda done, of: None,
    **settings: Any,
) -> dict[str, Any]:
    """Measures the credit of a text model on arithmetic and writes truth.json and truth.md.

    Args:
        model: "arithmetic", a folder, or a run on text (run@STEP).
        credits: as `parse_assigner` reads them; none = every entry of the table that a text has the fields for.
        unused: options that were given and mean something for images alone.
        out: the folder to write.
        settings: of `truth_of_text`.

    Returns:
        the content of truth.json.

    Raises:
        UserError: whatever is wrong, in one line; nothing is written then.
    """
    from .atomic import make_folder
    from .truth_assigners import default_assigners, parse_assigner
    from .truth_text import FIELDS, truth_of_text
    from .truth_text_report import write_text_report

    if unused:
        raise ConfigError(f"{', '.join(unused)}: for images alone; {model} is a text model")
    assigners = [parse_assigner(text, has_left=True) for text in credits]
    if not credits:
        assigners = [one for one in default_assigners()[0] if one.needs <= FIELDS]
    loaded, tokenizer = load_text(model)
    if tokenizer.tokenize("17+25*3:") != list("17+25*3:"):
        raise ModelError(f"model {model}: its tokens are no characters, which truth of text needs")
    make_folder(out)
    found = truth_of_text(loaded, tokenizer, assigners, progress=progress, **settings)
    write_text_report(found, out, model=model)
    return {"model": model, **found}
