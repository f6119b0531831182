"""Evaluation of a model by name: prompts of a world, its detector, reports on disk. The statistics are evaluate.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import api
from .evaluate import Evaluation, Protocol, evaluate, paired
from .interfaces import Prompt
from .prompts import load_prompts
from .run_folder import RunWriter

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """An evaluation, the one it is compared with, and where the first was written."""

    name: str
    evaluation: Evaluation
    against: Evaluation | None
    changes: dict[str, dict[str, float]] | None
    path: Path | None


def evaluation_prompts(split: str, per_task: int) -> list[Prompt]:
    """Prompts of the embedded world, `per_task` of each task that the split has, always the same ones."""
    from .geneval import TASKS
    from .shapes.grammar import prompt_set, records

    tasks = [task for task in TASKS if records(task, split)]
    return prompt_set(split, tasks, per_task=per_task, seed=1)


def evaluate_model(
    model: str,
    against: str | None = None,
    *,
    split: str = "train",
    prompt_file: Path | None = None,
    per_task: int = 50,
    images: int = 4,
    cfg_scale: float = 2.0,
    temperature: float = 1.0,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluates one model, or two on the same prompts and noise, and writes the reports.

    Args:
        model: name, model folder or run folder.
        against: the other model, which counts as "before".
        split: train (held-in compositions) or heldout.
        prompt_file: JSONL with GenEval records about shapes, instead of the split.
        per_task, images: how many.
        cfg_scale, temperature, seed: of sampling; the seed's noise is never that of training.
        out: where to write; None = evaluations/ of `model` if it is a run folder, else nowhere.
        progress: (images done, of) over both models.
    """
    from .shapes.detector import classes

    if prompt_file is not None:
        prompts = load_prompts(prompt_file, classes=classes())
        split = prompt_file.stem
    else:
        prompts = evaluation_prompts(split, per_task)
    protocol = Protocol(
        images_per_prompt=images, cfg_scale=cfg_scale, temperature=temperature, seed=seed
    )
    names = [model] if against is None else [against, model]
    total = len(prompts) * images * len(names)
    found: list[Evaluation] = []
    for i, name in enumerate(names):
        found.append(
            evaluate(
                api.load_model(name),
                prompts,
                api.shapes_detector(),
                protocol,
                progress=_shifted(progress, i * total // len(names), total),
            )
        )
    after, before = found[-1], found[0] if against is not None else None
    name = f"{split}-cfg{cfg_scale:g}-t{temperature:g}-seed{seed}"
    changes = paired(before, after) if before is not None else None
    return Report(name, after, before, changes, _written(model, name, after, changes, out))


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one part of a whole that has `before` behind it."""
    if progress is None:
        return None
    return lambda done, of: progress(before + done, total)


def _written(
    model: str,
    name: str,
    evaluation: Evaluation,
    changes: dict[str, dict[str, float]] | None,
    out: Path | None,
) -> Path | None:
    """Writes the report; None where there is no place for it."""
    if out is not None:
        return evaluation.save(out, name)
    folder = Path(model.rpartition("@")[0] or model)
    if not (folder / "config.yaml").is_file():
        return None
    result = evaluation.to_json() | ({"paired": changes} if changes else {})
    return RunWriter(folder).write_evaluation(name, result, evaluation.records)
