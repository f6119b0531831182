"""GenEval-style evaluation: seeded images of every prompt, or anybody's, and a verdict or rewards for each. Trains nothing.

Model and judges are passed in. Shapes: P lines of a prompt set or folders of images, G images of each, T image tokens in
raster order. Image g of line p is sample p * G + g, and its noise depends on (seed, sample) alone, not on the batch it is
sampled in. Lines of one prompt are counted together in the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import PromptError
from ...geneval import Detection, judge, keep
from ...interfaces import ImageTokenModel, Prompt
from ...prompts.records import validate_spec
from ...rollout.images import to_uint8
from ...rollout.sampling import EVALUATION_DOMAIN, derive_seed, sample_rollout
from ...run_folder.journal import Found, Journal
from ...training.metrics import token_disagreement
from .image_folder import ImageFolder, Pixels, image_name, write_images
from .protocol import Protocol
from .rewards import Score, reward_record
from .scores import Evaluation

Specs = Sequence[Mapping[str, Any]]
Detect = Callable[[NDArray[np.uint8], Specs], list[dict[str, list[Detection]]]]
Progress = Callable[[int, int], None]  # done, of
# names, prompts and pictures (or why there is none) of images to their records
Judge = Callable[[Sequence[str], Sequence[Prompt], Sequence[Pixels | str]], list[dict[str, Any]]]
# names and pictures (or why there is none) of the images of n lines, and how much each line's differ (None if unknown)
Look = tuple[list[str], list[Pixels | str], list[float | None]]


def evaluate(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    detect: Detect | None,
    protocol: Protocol,
    *,
    score: Score | None = None,
    progress: Progress = lambda done, of: None,
    keep_images: bool = False,
    folder: Path | None = None,
    journal: Journal | None = None,
) -> Evaluation:
    """Samples `images_per_prompt` images of every line and judges them.

    Args:
        model: the generator; put into evaluation mode and back, if it has modes.
        prompts: P prompts with their GenEval records.
        detect: images (N, h, w, 3) uint8 and their records to one {class: detections} per image; classes that a
            record does not name may be left out.
        protocol: how to sample and judge.
        score: gives rewards; then nothing is detected, and prompts need no record.
        progress: called with the images done and the images in all.
        keep_images: also keep the pixels.
        folder: where to write the images, in GenEval's layout.
        journal: what is done already, and where to keep what is done from now on.

    Raises:
        PromptError: there is no prompt, or one has no usable record.
    """
    group = protocol.images_per_prompt
    kept: list[Pixels] = []
    sampling = protocol.sampling()
    seed, template = sampling.pop("seed"), sampling.pop("template")

    def sampled(places: range) -> Look:
        part = [prompts[p] for p in places]
        rollout = sample_rollout(
            model,
            [replace(p, text=template.replace("{prompt}", p.text)) for p in part],
            group_size=group,
            seed=derive_seed(EVALUATION_DOMAIN, seed),
            batch_size=protocol.batch_size,
            first_sample=places.start * group,
            negative_branch=False,
            **sampling,
        )
        pixels = to_uint8(rollout.images)
        if folder:
            write_images(folder, places.start, part, pixels)
        if keep_images:
            kept.append(pixels)
        names = [image_name(p, g) for p in places for g in range(group)]
        tokens = rollout.tokens.cpu().numpy().reshape(len(part), group, -1)
        return names, list(pixels), token_disagreement(tokens)

    with _evaluation_mode(model):
        sizes = [group] * len(prompts)
        judge = judge_of(detect, score, protocol)
        found = _judged(prompts, sizes, sampled, judge, protocol, progress, journal)
    if not keep_images:
        return found
    rows = {image_name(*divmod(row, group)): row for row in range(len(found.records))}
    order = [rows[record["filename"]] for record in found.records]
    return replace(found, images=np.concatenate(kept)[order])


def evaluate_images(
    images: ImageFolder,
    detect: Detect | None,
    protocol: Protocol,
    *,
    score: Score | None = None,
    progress: Progress = lambda done, of: None,
    journal: Journal | None = None,
) -> Evaluation:
    """Judges the images of a folder; one that is missing or unreadable is wrong, or has no reward, and its record says so.

    Args:
        images: P folders, what they asked for and where their images lie.
        detect, protocol, score, progress, journal: see `evaluate`; `batch_size` images are judged at a time.

    Raises:
        PromptError: there is no prompt, or one has no usable record.
    """

    def loaded(places: range) -> Look:
        names = [name for p in places for name in images.names[p]]
        pictures = [picture for p in places for picture in images.load(p)]
        return names, pictures, [None] * len(places)

    sizes = [len(names) for names in images.names]
    judge = judge_of(detect, score, protocol)
    return _judged(images.prompts, sizes, loaded, judge, protocol, progress, journal)


# Parts ------------------------------------------------------------------------------------------------------------


def check_prompts(prompts: Sequence[Prompt], *, records: bool = True) -> None:
    """Raises PromptError unless there are prompts and, with `records`, each has a usable record."""
    if not prompts:
        raise PromptError("prompts: the set is empty, at least one prompt is needed")
    for prompt in prompts if records else ():
        where = f"prompt {prompt.text!r}"
        if prompt.spec is None:
            raise PromptError(
                f"{where}: has no GenEval record, which a detector needs; --reward judges texts alone"
            )
        validate_spec(prompt.spec, where=where)


@contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout and the like off, and every module's own mode back afterwards."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _judged(
    prompts: Sequence[Prompt],
    sizes: Sequence[int],
    look: Callable[[range], Look],
    judge: Judge,
    protocol: Protocol,
    progress: Progress,
    journal: Journal | None,
) -> Evaluation:
    """Judges batch by batch what `look` finds of the lines at some places, `sizes` (P) images each, from where the journal
    ends."""
    check_prompts(prompts, records=not protocol.rewards)
    per_call = max(
        1, protocol.batch_size // max(sizes)
    )  # sample_rollout splits a group that is too big
    found = list(journal.found) if journal else []
    if found:
        progress(sum(sizes[: len(found)]), sum(sizes))
    for first in range(len(found), len(prompts), per_call):
        places = range(first, min(first + per_call, len(prompts)))
        names, pictures, spread = look(places)
        owners = [prompts[p] for p in places for _ in range(sizes[p])]
        rows = iter(judge(names, owners, pictures))
        new = [Found(list(islice(rows, sizes[p])), d) for p, d in zip(places, spread, strict=True)]
        found += new
        if journal:
            journal.add(new)
        progress(sum(sizes[: len(found)]), sum(sizes))
    entries = zip(found, prompts, strict=True)
    return Evaluation.gather(
        protocol, ((one.records, prompt.negative, one.disagreement) for one, prompt in entries)
    )


def judge_of(detect: Detect | None, score: Score | None, protocol: Protocol) -> Judge:
    """Names, prompts and pictures of images to their records: by rewards if there are some, else by the objects."""

    def objects(
        names: Sequence[str], prompts: Sequence[Prompt], pictures: Sequence[Pixels | str]
    ) -> list[dict[str, Any]]:
        assert detect is not None
        specs = [prompt.spec or {} for prompt in prompts]
        found: list[Mapping[str, Sequence[Detection]]] = [{} for _ in pictures]
        for places, images in _of_one_size(pictures):
            seen = detect(images, [specs[i] for i in places])
            assert len(seen) == len(places), (len(seen), len(places))
            for i, one in zip(places, seen, strict=True):
                found[i] = one
        every = zip(names, prompts, found, pictures, strict=True)
        return [_record(*one, protocol) for one in every]

    def rewards(
        names: Sequence[str], prompts: Sequence[Prompt], pictures: Sequence[Pixels | str]
    ) -> list[dict[str, Any]]:
        assert score is not None
        found: list[dict[str, float]] = [{} for _ in pictures]
        for places, images in _of_one_size(pictures):
            for name, values in score(images, [prompts[i] for i in places]).items():
                for i, value in zip(places, values, strict=True):
                    found[i][name] = value
        faults = [picture if isinstance(picture, str) else "" for picture in pictures]
        every = zip(names, prompts, found, faults, strict=True)
        return [reward_record(*one) for one in every]

    return rewards if score else objects


def _of_one_size(
    pictures: Sequence[Pixels | str],
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Places and pixels (n, h, w, 3) of the pictures of each size; those that are not there are left out."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        if not isinstance(picture, str):
            sizes.setdefault(picture.shape, []).append(i)
    for places in sizes.values():
        yield places, np.stack([pictures[i] for i in places])


def _record(
    name: str,
    prompt: Prompt,
    found: Mapping[str, Sequence[Detection]],
    picture: Pixels | str,
    protocol: Protocol,
) -> dict[str, Any]:
    """The verdict in GenEval's format, and what we add to it; without a picture it is wrong."""
    assert prompt.spec is not None
    settings = protocol.judging()
    verdict = judge(found, prompt.spec, **settings)
    del settings["position_threshold"]
    kept = keep(found, prompt.spec["tag"], **settings)
    fault = picture if isinstance(picture, str) else ""
    return {
        "filename": name,
        "tag": prompt.spec["tag"],
        "prompt": prompt.text,
        "correct": verdict.correct and not fault,
        "reason": fault or verdict.reason,
        # GenEval's own summary counts distinct texts here as prompts
        "metadata": json.dumps({**prompt.spec, "prompt": prompt.text}),
        "details": json.dumps(
            {kind: [[*one.box, one.confidence] for one in every] for kind, every in kept.items()}
        ),
        "colors": {kind: [one.color for one in every] for kind, every in kept.items()},
        "score": 0.0 if fault else verdict.score,
        "fault": fault,
    }
