"""A trained run as a model folder that others load: adapter merged, the library's own layout, a card that tells the run.

Trains and evaluates nothing: the card repeats what the run folder knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..config.schema import parse_config
from ..errors import RunError, UserError, one_line
from ..heatmap.files import write_heatmaps
from ..run_folder.atomic import write_atomic, write_folder_atomic
from ..run_folder.checkpoint import list_checkpoints
from ..run_folder.reader import RunReader
from ..training.tune import adapter_layers, cast_parameters, merge_adapter
from ..yaml_text import write_yaml
from .models import load_model, split_step

CARD, SHEET = "README.md", "credit.png"


def export(run: str, out: Path, *, push: str | None = None) -> Path:
    """Writes the trained model of a run.

    Args:
        run: the run folder; "runs/x@100" is its checkpoint of step 100, otherwise the newest counts.
        out: the folder to write; must not exist. Complete or absent.
        push: hub id of a repository to upload it to (private, made where it is missing).

    Returns:
        `out`.

    Raises:
        RunError: no such run or checkpoint, or `out` exists.
        UserError: `push` is no hub id.
        ModelError: the run's model cannot be loaded.
    """
    if push is not None:
        _check_push(push)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: exists; name another folder, or delete it")
    path, step = split_step(run)
    reader = RunReader(path)
    config = parse_config(reader.config()).model_dump(mode="json")
    steps = [step] if step is not None else list_checkpoints(reader.path / "checkpoints")[-1:]
    if not steps:
        raise RunError(f"{path}: the run has no checkpoint yet")
    model = load_model(run, device="cpu")
    if adapter_layers(model):
        merge_adapter(model)
        cast_parameters(model, torch.float32)  # one format for all; see there
    scores = _scores(reader)
    with write_folder_atomic(out, replace=False) as draft:
        model.save_pretrained(draft)
        pictured = _credit_sheet(reader, draft)
        text = card(config, scores, step=steps[0], pictured=pictured)
        write_atomic(draft / CARD, text.encode())
    if push is not None:
        _push(out, push)
    return out


def card(
    config: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    *,
    step: int,
    pictured: bool,
) -> str:
    """The model card: recipe, scores before and after, credit maps.

    Args:
        config: the run's resolved configuration.
        scores: evaluation name to {task: before, after, change, low, high}; None where nothing is known.
        step: of the checkpoint.
        pictured: whether credit.png lies beside it.
    """
    base = config["model"]["name"]
    local = Path(base).exists()
    shown = Path(base).name if Path(base).is_absolute() else base  # of nobody else's machine
    lines = [
        "---",
        "library_name: t2i-credit",
        "pipeline_tag: text-to-image",
        *([f"base_model: {base}"] if "/" in base and base == shown and not local else []),
        "tags: [reinforcement-learning, credit-assignment]",
        "---",
        f"# {Path(base).name}, fine-tuned with {config['credit']['name']}",
        "",
        f"`{shown}` after {step} steps of reinforcement learning with t2i-credit, a credit for every image token "
        f"({config['credit']['name']}), rewarded by {', '.join(config['reward'])}.",
        "",
        "## Scores",
        "",
    ]
    if not scores:
        lines += [
            "Not evaluated yet: `t2i-credit evaluate RUN --against BASE`, then export again.",
            "",
        ]
    for name, tasks in scores.items():
        lines += [f"{name}:", "", "| task | before | after | change [95%] |", "|---|---|---|---|"]
        for task, row in tasks.items():
            before, after, change, low, high = (
                row[key] for key in ("before", "after", "change", "low", "high")
            )
            cells = [task, _shown(before, ".3f"), _shown(after, ".3f"), _shown(change, "+.3f")]
            if None not in (change, low, high):
                cells[-1] += f" [{low:+.3f}, {high:+.3f}]"
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if pictured:
        lines += ["## Credit", "", f"![Images and the credit of their tokens]({SHEET})", ""]
    recipe = write_yaml(dict(config)).rstrip()
    return "\n".join([*lines, "## Recipe", "", "```yaml", recipe, "```", ""])


def _shown(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _scores(reader: RunReader) -> dict[str, dict[str, dict[str, float | None]]]:
    """What the run's evaluations found, of every task or reward: after, and before, change, low and high where two were
    compared; None where nothing is known."""
    found = {}
    for name in reader.evaluations():
        value = reader.evaluation(name)
        try:
            rows = value.get("paired") or value["summary"]
            found[name] = {
                task: {
                    "after": _number(row, "after", "correct", "mean"),
                    **{key: _number(row, key) for key in ("before", "change", "low", "high")},
                }
                for task, row in rows.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RunError(f"{reader.path}: evaluation {name}: damaged scores") from error
    return found


def _number(row: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these entries that is there."""
    value = next((row[key] for key in keys if row.get(key) is not None), None)
    return None if value is None else float(value)


def _credit_sheet(reader: RunReader, folder: Path) -> bool:
    """The contact sheet of the newest recorded step; False where the run recorded none."""
    if not reader.steps():
        return False
    drawn = folder / ".heatmaps"
    try:
        shutil.move(write_heatmaps(reader.path, None, drawn)[0], folder / SHEET)
    finally:
        shutil.rmtree(drawn, ignore_errors=True)
    return True


def _check_push(name: str) -> None:
    """Raises UserError for what no repository can be called."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push {name}: {one_line(error)}; nothing was written") from error


def _push(folder: Path, name: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # of the HTTP library it has

    try:
        hub = HfApi()
        hub.create_repo(name, private=True, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder)
    except (HTTPError, HFValidationError, OSError) as error:  # OSError: offline, or no such file
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--push {name}: {reason}; the folder {folder} is complete") from error
