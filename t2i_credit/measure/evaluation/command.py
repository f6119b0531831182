"""Evaluation by name: a model or a folder of images, its prompts and who judges. The statistics are scores.py's,
the loop is evaluate.py's, the files are store.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...api.models import (
    began_with,
    check_model,
    run_of,
    usual_batch_size,
    usual_negative,
    usual_sampling,
    usual_world,
)
from ...api.objects import load_detector
from ...errors import UserError
from ...interfaces import Prompt
from ...models import embedded_names
from ...prompts.batches import with_negative
from ...prompts.files import load_prompts
from ...prompts.records import WORLDS
from ...run_folder.layout import evaluation_path
from ...worlds.world import find_world
from .evaluate import Progress, check_prompts
from .find_images import read_folder
from .image_folder import is_image_folder
from .protocol import JUDGING, SAMPLING, Protocol, digest, evaluation_name, folder_name
from .results import load_results
from .rewards import load_rewards, parse_rewards
from .scores import usual_size
from .store import (
    FILES,
    Judges,
    Report,
    Say,
    Work,
    identity,
    origin_of,
    require_free,
    stamp,
    trained_on,
)


def split_name(world: str, split: str) -> str:
    """What an evaluation says that its prompts are, if they are those of a world."""
    return f"{world}, split {split}"


def judged_prompts(prompts: list[Prompt], detector: str | None) -> tuple[list[Prompt], str]:
    """The prompts whose classes a world's detector knows, and a line about the others; all prompts of any other detector,
    or where it knows none, which is refused later."""
    if detector not in WORLDS:
        return prompts, ""
    known = set(find_world(str(detector)).grammar.names)
    asked = [{c["class"] for c in (p.spec or {}).get("include", ())} for p in prompts]
    kept = [prompt for prompt, names in zip(prompts, asked, strict=True) if names <= known]
    if not kept or len(kept) == len(prompts):
        return prompts, ""
    others = ", ".join(sorted(set.union(*asked) - known))
    return kept, (
        f"{len(kept)} of {len(prompts)} prompts are evaluated; the others ask for what the detector {detector} does not "
        f"know: {others}"
    )


def evaluate_model(
    model: str,
    against: str | None = None,
    *,
    split: str = "train",
    source: str | None = None,
    column: str | None = None,
    per_task: int = 50,
    negative: str | None = None,
    rewards: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress = lambda done, of: None,
    warn: Say = lambda line: None,
    **settings: Any,
) -> Report:
    """Evaluates a model, writes images and reports, and goes on where a killed evaluation was.

    Args:
        model: name, model folder or run folder (run@STEP).
        against: what counts as "before": another model, evaluated on the same prompts and noise, a folder of
            images, the .json of an evaluation, or GenEval's own results (.jsonl).
        split: train (held-in compositions) or heldout, of the embedded world.
        source, column: a prompt file (see `load_prompts`) instead of the split; a detector needs GenEval records in it.
        per_task: how many prompts of each task of the split.
        negative: one negative prompt for all, for what comes "before" too; None = the prompts' own.
        rewards: who judges in place of a detector, see `parse_rewards`.
        out: the folder to write; None = evaluations/ of `model` if it is a run folder, else evaluations/MODEL/.
        progress: (images done, of) over both models.
        warn: called with lines that the user should read.
        settings: of the `Protocol`, such as cfg_scale (unless given that of `usual_sampling`, for what comes "before" too)
            or seed, whose noise is never that of training.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    usual: dict[str, Any] = usual_sampling(model)
    usual |= {"batch_size": usual_batch_size(model, Protocol.batch_size)}
    world = usual_world(model)
    usual |= {} if rewards else {"detector": world}
    protocol = Protocol(**{**usual, **judged_by(rewards, settings)})
    judges = find_judges(protocol)
    if source:
        given, left_out = judged_prompts(load_prompts(source, column=column), protocol.detector)
    else:
        given, left_out = find_world(world).evaluation_prompts(split, per_task), ""
    prompts = with_negative(given, negative)
    check_prompts(prompts, records=not rewards)
    unread = judges.check(prompts)
    name = evaluation_name(Path(source).stem if source else split, model, protocol)
    if negative is not None:
        name += f"-negative{digest(negative)[:6]}"
    if out is None:
        run, beside = run_of(model), Path("evaluations")
        out = run[0] / beside if run else beside / (Path(model).name or "model")
    about = {"model": model, "prompts": source or split_name(world, split)}
    require_free(evaluation_path(out, name), about)
    check_model(model)  # before the other model is sampled
    group = protocol.images_per_prompt
    look = partial(
        read_folder, prompts=prompts, images_per_prompt=group, records=not protocol.rewards
    )
    each = usual_size(prompts, [group] * len(prompts))
    work = Work(prompts, judges, protocol, evaluation_path(out, name), progress, warn, look, each)
    for line in (*([left_out] if left_out else []), *(unread or ())):
        work.tell(line)
    trained_under = usual_negative(model)
    if trained_under is not None and all(prompt.negative != trained_under for prompt in prompts):
        work.tell(
            f"{model} was trained under the negative prompt {trained_under!r}, and is evaluated under"
            f" {'the null prompt' if negative is None else repr(negative)}; --negative asks for another"
        )
    if line := trained_on(model, prompts):
        work.tell(line)
    base = began_with(model)
    if against in embedded_names() and base not in (None, against):
        work.tell(
            f"--against {against}: {model} began with {base}, so what is called before is another model"
        )
    about |= identity(model)
    about |= {} if negative is None else {"negative": negative}
    return work.report(
        against, lambda part: work.model(model, work.folder, about, part), work.folder
    )


def evaluate_folder(
    images: Path,
    against: str | None = None,
    *,
    source: str | None = None,
    column: str | None = None,
    negative: str | None = None,
    rewards: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress = lambda done, of: None,
    warn: Say = lambda line: None,
    images_per_prompt: int | None = None,
    **settings: Any,
) -> Report:
    """Judges a folder of images in GenEval's layout, or beside each other, anybody's; needs no generator.

    Args:
        images: the folder.
        against: another such folder, the .json of an evaluation, or GenEval's own results (.jsonl).
        source, column: the prompt file that the images belong to: then a prompt without a folder counts as wrong, or
            is left out where rewards judge.
        rewards: who judges in place of a detector, see `parse_rewards`.
        out: the folder to write; None = evaluations/.
        images_per_prompt: how many there should be; None = as many as of the other prompts.
        progress, warn: see `evaluate_model`.
        settings: of the `Protocol`, those that judge.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    given = {"negative": negative, **settings}
    if wrong := [key for key in given if key in ("negative", *SAMPLING) and given[key] is not None]:
        raise UserError(f"{wrong[0]}: decides how images are sampled, and {images} holds images")
    prompts = load_prompts(source, column=column) if source else None
    settings = judged_by(rewards, settings)
    records = not rewards
    look = partial(
        read_folder, prompts=prompts, images_per_prompt=images_per_prompt, records=records
    )
    folder = look(images)
    folder, protocol, about = origin_of(folder, settings)
    judges = find_judges(protocol)
    check_prompts(folder.prompts, records=records)
    unread = judges.check(folder.prompts)
    about |= {"prompts": source or str(images)}
    path = evaluation_path(out or Path("evaluations"), folder_name(images, protocol))
    require_free(path, {**about, "images": str(images.resolve())})
    work = Work(folder.prompts, judges, protocol, path, progress, warn, look)
    for line in unread or ():
        work.tell(line)
    if folder.ignored:
        more = f" and {len(folder.ignored) - 1} more" if len(folder.ignored) > 1 else ""
        why = "no PNG, JPEG or WebP, or beside images whose names are numbers"
        work.tell(f"{images}: not judged, {why}: {folder.ignored[0]}{more}")
    if against and not against.endswith(FILES) and not is_image_folder(Path(against)):
        raise UserError(f"--against {against}: is no folder of images, no .json or .jsonl either")
    return work.report(
        against, lambda part: work.images(folder, protocol, work.folder, about, part), images
    )


def evaluate_results(
    results: Path,
    against: str | None = None,
    *,
    out: Path | None = None,
    progress: Progress = lambda done, of: None,
    warn: Say = lambda line: None,
    source: str | None = None,
    column: str | None = None,
    negative: str | None = None,
    rewards: Sequence[str] = (),
    **settings: Any,
) -> Report:
    """Scores of results in GenEval's own format, by task with intervals; judges nothing.

    Args:
        results: the file, see `load_results`.
        against: other such results, or the .json of an evaluation.
        out: the folder to write; None = evaluations/.
        progress, warn: see `evaluate_model`.
        source, column, negative, rewards, settings: refused, for the results are there already.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    asked: dict[str, Any] = {"prompts": source, "prompt-column": column, "negative": negative}
    asked |= {"reward": rewards or None, **settings}
    if given := [name for name, value in asked.items() if value is not None]:
        raise UserError(f"{given[0]}: decides how images are judged, and {results} holds verdicts")
    if against and not against.endswith(FILES):
        raise UserError(f"--against {against}: of results, a .json or .jsonl is allowed")
    found = load_results(results)
    found = replace(found, about={**found.about, "prompts": str(results), **stamp()})
    prompts = [Prompt(record["prompt"], negative, record) for record, negative in found.asked()]
    path = evaluation_path(out or Path("evaluations"), f"{results.stem}-summary")
    require_free(path, found.about)
    work = Work(
        prompts,
        Judges(None, None, lambda every: ()),
        found.protocol,
        path,
        progress,
        warn,
        read_folder,
    )
    return work.report(against, lambda part: found, None)


def evaluate_named(
    model: str | None,
    images: Path | None,
    against: str | None,
    *,
    split: str,
    per_task: int,
    results: Path | None = None,
    **settings: Any,
) -> Report:
    """`evaluate_folder` if there is a folder of images, `evaluate_results` if there are results, else `evaluate_model`.

    Raises:
        UserError: several or none are given, and whatever else is wrong.
    """
    if sum(given is not None for given in (model, images, results)) != 1:
        raise UserError(
            "MODEL, --images, --results: give one of them, a model, a folder of images or a file of results"
        )
    if images is not None:
        return evaluate_folder(images, against, **settings)
    if results is not None:
        return evaluate_results(results, against, **settings)
    return evaluate_model(str(model), against, split=split, per_task=per_task, **settings)


def judged_by(rewards: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the rewards if there are some, and then none of a detector.

    Raises:
        UserError: both are given.
    """
    if not rewards:
        return dict(settings)
    if wrong := [key for key in settings if key in JUDGING]:
        given = f"{wrong[0]}: {settings[wrong[0]]!r}"
        raise UserError(f"{given} is a detector's, and --reward judges in its place")
    return {**settings, **dict.fromkeys(JUDGING), "rewards": parse_rewards(rewards)}


def find_judges(protocol: Protocol) -> Judges:
    """The detector or the rewards of a protocol; see `api.load_detector`.

    Raises:
        UserError: an unknown name, or weights that cannot be loaded.
    """
    if protocol.rewards:
        given = {name: dict(parameters) for name, parameters in protocol.rewards.items()}
        score, check = load_rewards(given)
        return Judges(None, score, check)
    settings = protocol.judging()
    del settings["position_threshold"]
    detect, known = load_detector(str(protocol.detector), **settings)
    return Judges(detect, None, known)
