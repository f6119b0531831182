"""GenEval-style evaluation: seeded images of every prompt, or anybody's, and a verdict on each. Trains nothing.

Model and detector are passed in. Shapes: P prompts, G images of each, T image tokens in raster order. Image g of
prompt p is sample p * G + g, and its noise depends on (seed, sample) alone, not on the batch it is sampled in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from ...training.metrics import token_disagreement
from .image_folder import ImageFolder, Pixels, image_name, write_images
from .journal import Found, Journal
from .protocol import Protocol
from .scores import Evaluation

Specs = Sequence[Mapping[str, Any]]
Detect = Callable[[NDArray[np.uint8], Specs], list[dict[str, list[Detection]]]]
Progress = Callable[[int, int], None]  # done, of


def evaluate(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    detect: Detect,
    protocol: Protocol,
    *,
    progress: Progress | None = None,
    keep_images: bool = False,
    folder: Path | None = None,
    journal: Journal | None = None,
) -> Evaluation:
    """Samples `images_per_prompt` images of every prompt and judges them.

    Args:
        model: the generator; put into evaluation mode and back, if it has modes.
        prompts: P prompts with their GenEval records.
        detect: images (N, h, w, 3) uint8 and their records to one {class: detections} per image; classes that a
            record does not name may be left out.
        protocol: how to sample and judge.
        progress: called with the images done and the images in all.
        keep_images: also keep the pixels.
        folder: where to write the images, in GenEval's layout.
        journal: what is done already, and where to keep what is done from now on.

    Raises:
        PromptError: there is no prompt, or one has no usable record.
    """
    check_prompts(prompts)
    group = protocol.images_per_prompt
    per_call = max(1, protocol.batch_size // group)  # sample_rollout splits a group that is too big
    found = list(journal.found) if journal else []
    kept = []
    sampling = protocol.sampling()
    seed, template = sampling.pop("seed"), sampling.pop("template")
    with _evaluation_mode(model):
        for first in range(len(found), len(prompts), per_call):
            part = prompts[first : first + per_call]
            rollout = sample_rollout(
                model,
                [_worded(prompt, template) for prompt in part],
                group_size=group,
                seed=derive_seed(EVALUATION_DOMAIN, seed),
                batch_size=protocol.batch_size,
                first_sample=first * group,
                negative_branch=False,
                **sampling,
            )
            tokens = rollout.tokens.cpu().numpy().reshape(len(part), group, -1)
            pixels = to_uint8(rollout.images)
            if folder:
                write_images(folder, first, part, pixels)
            names = [image_name(first + i // group, i % group) for i in range(len(pixels))]
            new = _judged(part, first, names, list(pixels), detect, protocol)
            spread = token_disagreement(tokens)
            new = [replace(one, disagreement=d) for one, d in zip(new, spread, strict=True)]
            found += new
            kept += [pixels] if keep_images else []
            _keep_and_tell(found, new, len(prompts), group, journal, progress)
    images = np.concatenate(kept) if keep_images else None
    return _evaluation(protocol, [p.negative for p in prompts], found, images)


def evaluate_images(
    images: ImageFolder,
    detect: Detect,
    protocol: Protocol,
    *,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Evaluation:
    """Judges the images of a folder; one that is missing or unreadable is wrong, and says so in its record.

    Args:
        images: P prompts and where their images lie.
        detect, protocol, progress, journal: see `evaluate`; `batch_size` images are judged at a time.

    Raises:
        PromptError: there is no prompt, or one has no usable record.
    """
    check_prompts(images.prompts)
    group = protocol.images_per_prompt
    assert len(images.numbers) == group, (images.numbers, group)
    per_call = max(1, protocol.batch_size // group)
    count = len(images.prompts)
    found = list(journal.found) if journal else []
    for first in range(len(found), count, per_call):
        places = range(first, min(first + per_call, count))
        pictures = [picture for p in places for picture in images.load(p)]
        names = [name for p in places for name in images.names(p)]
        part = [images.prompts[p] for p in places]
        new = _judged(part, first, names, pictures, detect, protocol)
        found += new
        _keep_and_tell(found, new, count, group, journal, progress)
    return _evaluation(protocol, [p.negative for p in images.prompts], found, None)


# Parts ------------------------------------------------------------------------------------------------------------


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raises PromptError unless there are prompts and each has a usable record."""
    if not prompts:
        raise PromptError("prompts: the set is empty, at least one prompt is needed")
    for prompt in prompts:
        where = f"prompt {prompt.text!r}"
        if prompt.spec is None:
            raise PromptError(f"{where}: no spec; an evaluation needs a GenEval record")
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


def _worded(prompt: Prompt, template: str) -> Prompt:
    """The prompt as the generator reads it."""
    return replace(prompt, text=template.replace("{prompt}", prompt.text))


def _keep_and_tell(
    found: Sequence[Found],
    new: Sequence[Found],
    prompts: int,
    group: int,
    journal: Journal | None,
    progress: Progress | None,
) -> None:
    """After a batch: keeps what is new, and says how far it all is."""
    if journal:
        journal.add(new)
    if progress:
        progress(len(found) * group, prompts * group)


def _evaluation(
    protocol: Protocol,
    negatives: list[str | None],
    found: Sequence[Found],
    images: NDArray[np.uint8] | None,
) -> Evaluation:
    records = [record for one in found for record in one.records]
    return Evaluation(protocol, negatives, [o.disagreement for o in found], records, images=images)


def _judged(
    prompts: Sequence[Prompt],
    first: int,
    names: Sequence[str],
    pictures: Sequence[Pixels | str],
    detect: Detect,
    protocol: Protocol,
) -> list[Found]:
    """The records of the n prompts from number `first` on, by their n*G pictures (or why there is none)."""
    group = protocol.images_per_prompt
    specs = [prompt.spec or {} for prompt in prompts for _ in range(group)]
    detections = _detected(pictures, specs, detect)
    found = []
    for p, prompt in enumerate(prompts):
        records = []
        for i in range(p * group, (p + 1) * group):
            picture = pictures[i]
            record = _record(prompt, detections[i], protocol)
            if isinstance(picture, str):
                record |= {"correct": False, "score": 0.0, "reason": picture, "fault": picture}
            place = {"prompt_index": first + p, "sample_index": i - p * group}
            records.append({"filename": names[i], **record, **place})
        found.append(Found(records, None))
    return found


def _detected(
    pictures: Sequence[Pixels | str], specs: Specs, detect: Detect
) -> list[Mapping[str, Sequence[Detection]]]:
    """What the detector finds on each picture, those of one size in one call; nothing where there is no picture."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        if not isinstance(picture, str):
            sizes.setdefault(picture.shape, []).append(i)
    found: list[Mapping[str, Sequence[Detection]]] = [{} for _ in pictures]
    for places in sizes.values():
        seen = detect(np.stack([pictures[i] for i in places]), [specs[i] for i in places])
        assert len(seen) == len(places), (len(seen), len(places))
        for i, one in zip(places, seen, strict=True):
            found[i] = one
    return found


def _record(
    prompt: Prompt, found: Mapping[str, Sequence[Detection]], protocol: Protocol
) -> dict[str, Any]:
    """The verdict in GenEval's format, and what we add to it."""
    assert prompt.spec is not None
    settings = protocol.judging()
    verdict = judge(found, prompt.spec, **settings)
    del settings["position_threshold"]
    kept = keep(found, prompt.spec["tag"], **settings)
    return {
        "tag": prompt.spec["tag"],
        "prompt": prompt.text,
        "correct": verdict.correct,
        "reason": verdict.reason,
        # GenEval's own summary counts distinct texts here as prompts
        "metadata": json.dumps({**prompt.spec, "prompt": prompt.text}),
        "details": json.dumps(
            {name: [[*one.box, one.confidence] for one in every] for name, every in kept.items()}
        ),
        "colors": {name: [one.color for one in every] for name, every in kept.items()},
        "score": verdict.score,
        "fault": "",
    }
