"""Evaluation by name: a model or a folder of images, its prompts and its detector. The statistics are scores.py's,
the loop is evaluate.py's, the files are store.py's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...api.models import check_model, run_of, usual_batch_size, usual_cfg_scale
from ...api.objects import load_detector
from ...errors import UserError
from ...interfaces import Prompt
from ...prompts.files import load_prompts
from ...prompts.records import TASKS
from ...run_folder.layout import evaluation_path
from ...worlds.shapes.grammar import prompt_set, records
from .evaluate import Detect, Progress, check_prompts
from .image_folder import is_image_folder, read_folder
from .protocol import SAMPLING, Protocol
from .store import Report, Say, Work, evaluation_name, folder_name, identity, origin_of, trained_on


def evaluation_prompts(split: str, per_task: int) -> list[Prompt]:
    """Prompts of the embedded world, `per_task` of each task that the split has, always the same ones."""
    tasks = [task for task in TASKS if records(task, split)]
    return prompt_set(split, tasks, per_task=per_task, seed=1)


def split_name(split: str) -> str:
    """What an evaluation says that its prompts are, if they are those of `evaluation_prompts`."""
    return f"shapes, split {split}"


def evaluate_model(
    model: str,
    against: str | None = None,
    *,
    split: str = "train",
    source: str | None = None,
    column: str | None = None,
    per_task: int = 50,
    out: Path | None = None,
    progress: Progress = lambda done, of: None,
    warn: Say = lambda line: None,
    **settings: Any,
) -> Report:
    """Evaluates a model, writes images and reports, and goes on where a killed evaluation was.

    Args:
        model: name, model folder or run folder (run@STEP).
        against: what counts as "before": another model, evaluated on the same prompts and noise, a folder of
            images, or the .json of an evaluation.
        split: train (held-in compositions) or heldout, of the embedded world.
        source, column: a prompt file with GenEval records (see `load_prompts`), instead of the split.
        per_task: how many prompts of each task of the split.
        out: the folder to write; None = evaluations/ of `model` if it is a run folder, else evaluations/MODEL/.
        progress: (images done, of) over both models.
        warn: called with lines that the user should read.
        settings: of the `Protocol`, such as cfg_scale (unless given that of `usual_cfg_scale`, for what comes "before" too)
            or seed, whose noise is never that of training.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    usual = {"cfg_scale": usual_cfg_scale(model)}
    usual |= {"batch_size": usual_batch_size(model, Protocol.batch_size)}
    protocol = Protocol(**{**usual, **settings})
    detect, check = find_detector(protocol)
    given = load_prompts(source, column=column) if source else None
    prompts = given or evaluation_prompts(split, per_task)
    check_prompts(prompts)
    check(prompts)
    name = evaluation_name(Path(source).stem if source else split, model, protocol)
    check_model(model)  # before the other model is sampled
    if out is None:
        run, beside = run_of(model), Path("evaluations")
        out = run[0] / beside if run else beside / (Path(model).name or "model")
    work = Work(prompts, detect, protocol, evaluation_path(out, name), progress, warn)
    if line := trained_on(model, prompts):
        work.tell(line)
    about = {"model": model, **identity(model), "prompts": source or split_name(split)}
    return work.report(
        against, lambda part: work.model(model, work.folder, about, part), work.folder
    )


def evaluate_folder(
    images: Path,
    against: str | None = None,
    *,
    source: str | None = None,
    column: str | None = None,
    out: Path | None = None,
    progress: Progress = lambda done, of: None,
    warn: Say = lambda line: None,
    images_per_prompt: int | None = None,
    **settings: Any,
) -> Report:
    """Judges a folder of images in GenEval's layout, anybody's; needs no generator.

    Args:
        images: the folder.
        against: another such folder, or the .json of an evaluation.
        source, column: the prompt file that the images belong to: then a prompt without a folder counts as wrong.
        out: the folder to write; None = evaluations/.
        images_per_prompt: how many there should be; None = as many as there are different names.
        progress, warn: see `evaluate_model`.
        settings: of the `Protocol`, those that judge.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    if wrong := [key for key in settings if key in SAMPLING]:
        raise UserError(f"{wrong[0]}: decides how images are sampled, and {images} holds images")
    prompts = load_prompts(source, column=column) if source else None
    folder = read_folder(images, prompts=prompts, images_per_prompt=images_per_prompt)
    folder, protocol, about = origin_of(folder, settings)
    detect, check = find_detector(protocol)
    check_prompts(folder.prompts)
    check(folder.prompts)
    about |= {"prompts": source or str(images)}
    path = evaluation_path(out or Path("evaluations"), folder_name(images, protocol))
    work = Work(folder.prompts, detect, protocol, path, progress, warn)
    if folder.ignored:
        more = f" and {len(folder.ignored) - 1} more" if len(folder.ignored) > 1 else ""
        line = f"not judged, for its name is not like 0000.png: {folder.ignored[0]}{more}"
        work.tell(f"{images}: {line}")
    if against and not against.endswith(".json") and not is_image_folder(Path(against)):
        raise UserError(f"--against {against}: is no folder of images, no .json either")
    return work.report(
        against, lambda part: work.images(folder, protocol, work.folder, about, part), images
    )


def evaluate_named(
    model: str | None,
    images: Path | None,
    against: str | None,
    *,
    split: str,
    per_task: int,
    **settings: Any,
) -> Report:
    """`evaluate_folder` if there is a folder of images, else `evaluate_model`.

    Raises:
        UserError: both or neither are given, and whatever else is wrong.
    """
    if images is not None and model is None:
        return evaluate_folder(images, against, **settings)
    if model is None or images is not None:
        raise UserError("MODEL, --images: give one of them, a model or a folder of images")
    return evaluate_model(model, against, split=split, per_task=per_task, **settings)


def find_detector(protocol: Protocol) -> tuple[Detect, Callable[[Sequence[Prompt]], None]]:
    """Who finds the objects, and what raises UserError for prompts that it cannot judge; see `api.load_detector`.

    Raises:
        UserError: an unknown name, or weights that cannot be loaded.
    """
    settings = protocol.judging()
    del settings["position_threshold"]
    return load_detector(protocol.detector, **settings)
