"""What evaluations are called, where they lie, and what a model's name means right now. Evaluates nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import __version__, api
from .config import parse_config
from .errors import UserError
from .interfaces import Prompt
from .loading import run_of
from .prompts import overlap
from .protocol import SAMPLING, Protocol, defaults
from .run_folder import RunReader
from .run_reader import evaluation_path


def identity(model: str) -> dict[str, Any]:
    """Which weights a name stands for now: a run's newest checkpoint moves on while it trains."""
    if run := run_of(model):
        reader = RunReader(run[0])
        steps = reader.checkpoints()
        return {
            "step": run[1] or (steps[-1] if steps else None),
            "run_started": reader.status().started,
        }
    written = [p.stat().st_mtime_ns for p in Path(model).rglob("*.safetensors")]
    return {"written": max(written)} if written else {}


def trained_on(model: str, prompts: Sequence[Prompt]) -> str:
    """A warning if a run was trained on some of the prompts, or if nobody knows; "" if it was not."""
    run = run_of(model)
    if run is None:
        return ""
    try:
        trained = api.load_prompt_set(parse_config(RunReader(run[0]).config()))
    except UserError as error:
        return f"nobody knows whether {run[0]} was trained on these prompts: {error}"
    common, held = overlap(prompts, trained), len({prompt.text for prompt in prompts})
    if not common:
        return ""
    return (
        f"{len(common)} of {held} prompts are among those that {run[0]} was trained on, such as {common[0]!r}:"
        " the scores say nothing about others"
    )


def evaluation_name(prompts: str, model: str, protocol: Protocol) -> str:
    """Prompts, guidance, temperature, seed, the step that was asked for, and a mark of all that is unusual."""
    run = run_of(model)
    step = f"-step{run[1]}" if run and run[1] is not None else ""
    settings = f"cfg{protocol.cfg_scale:g}-t{protocol.temperature:g}-seed{protocol.seed}"
    named = ("cfg_scale", "temperature", "seed")
    return f"{prompts}-{settings}{step}{_mark(protocol, named)}"


def folder_name(images: Path, protocol: Protocol) -> str:
    """The folder's own name, the detector, and a mark of all that is unusual about the judging."""
    name = f"{images.resolve().name}-{re.sub(r'[^A-Za-z0-9_.-]', '.', protocol.detector)}"
    return name + _mark(protocol, ("detector", *SAMPLING))


def _mark(protocol: Protocol, named: Sequence[str]) -> str:
    """Six digits that differ where settings differ which the rest of a name does not tell; none if all are usual."""
    named = (*named, "images_per_prompt", "batch_size")
    unusual = defaults({k: v for k, v in protocol.to_dict().items() if k not in named})
    digest = hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()
    return f"-{digest[:6]}" if unusual else ""


def place_of(model: str | None, name: str, out: Path | None) -> Path | None:
    """The JSON file to write; None where there is no place for it."""
    if out is not None:
        return out / f"{name}.json"
    run = run_of(model) if model else None
    return evaluation_path(run[0] / "evaluations", name) if run else None


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    rows = [[p.text, p.negative, dict(p.spec or {})] for p in prompts]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def stamp() -> dict[str, Any]:
    return {"t2i_credit": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
