"""Who finds the prompted objects of a truth measurement and of a run's kept samples: the embedded world's detector, or any
other of the rewards'.

Judges no image: an object counts whatever its colour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..config.plugins import check_params
from ..config.schema import Config
from ..errors import ConfigError, PromptError
from ..geneval import Detection, keep
from ..interfaces import Prompt, Rollout
from ..prompts.records import WORLDS
from ..rollout.images import from_uint8, to_uint8
from ..training.metrics import Objects

SHAPES = WORLDS[0]  # who finds objects where nobody else is named
KEPT_BY = ("threshold", "counting_threshold", "max_objects", "nms_threshold")
RUN_BY = ("device", "batch_size")


@dataclass(frozen=True)
class Finder:
    """A detector under its name.

    Attributes:
        name: as `--detector` takes it.
        describe: rollout to the objects of each sample, as the run folder keeps them.
        check: raises PromptError for prompts whose objects it cannot find.
    """

    name: str
    describe: Callable[[Rollout], Objects]
    check: Callable[[Sequence[Prompt]], None]


def find_finder(
    config: Config, detector: str | None = None, threshold: float | None = None
) -> Finder:
    """Loads a detector.

    Args:
        config: whose geneval reward says which detector and which of its objects count, as far as it has one.
        detector: as `api.load_detector` takes it; None = that of the geneval reward, shapes where there is none.
        threshold: an object counts above this confidence, in [0, 1]; None = above that of the verdict.

    Raises:
        UserError: it is unknown, or cannot be loaded.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold: {threshold}; 0 to 1")
    reward = config.reward.get("geneval")
    params = dict(reward.params) if reward else {}
    if detector is None:
        detector = "@".join(filter(None, (params.get("detector", SHAPES), params.get("model"))))
    if detector in WORLDS:
        if threshold is not None:
            raise ConfigError(f"--threshold: the {detector} detector has none; name a --detector")
        return Finder(detector, describe_world(detector), partial(_check_world, detector))
    kept_by = {name: params[name] for name in KEPT_BY if name in params}
    if threshold is not None:
        kept_by |= {"threshold": threshold, "counting_threshold": threshold}
    run_by = {name: params[name] for name in RUN_BY if name in params}
    detect, known = load_detector(detector, **run_by)
    return Finder(
        detector,
        describe_by(lambda r, specs: detect(to_uint8(r.images), specs), kept_by),
        lambda prompts: known([_colorless(prompt) for prompt in prompts]),
    )


def describe_by(
    find: Callable[[Rollout, Sequence[Mapping[str, Any]]], Sequence[Any]],
    kept_by: Mapping[str, Any],
) -> Callable[[Rollout], Objects]:
    """Rollout to the objects of each sample that count for its verdict, whatever their colour.

    Args:
        find: a rollout and the records of its samples, without colours, to {class: detections} of each.
        kept_by: which objects count; see `geneval.keep`.
    """

    def describe(rollout: Rollout) -> Objects:
        specs = [_colorless(prompt).spec or {} for prompt in rollout.prompts]
        found = find(rollout, specs)
        kept = [keep(one, s["tag"], **kept_by) for one, s in zip(found, specs, strict=True)]
        return described(rollout.prompts, kept)

    return describe


def describe_as_rewarded(config: Config, reward: Any) -> Callable[[Rollout], Objects] | None:
    """Who finds the objects of the samples that a training run keeps: the detector of its geneval reward, which is loaded
    already, or that of the embedded world on its own prompts. None = nobody.

    Args:
        config: of the run.
        reward: its `WeightedReward`.
    """
    _, judge = reward.parts.get("geneval", (0.0, None))
    detector = config.reward["geneval"].params.get("detector", SHAPES) if judge else None
    for world in (detector, config.prompts.source):
        if world in WORLDS:
            return describe_world(world)
    if judge is None:
        return None
    return describe_by(lambda r, specs: judge.find(r.images, specs), judge.judging)


def require_objects(prompts: Sequence[Prompt], source: str) -> None:
    """Raises PromptError if a prompt asks for no object: then nothing has a mask. Loads nothing."""
    for prompt in prompts:
        if not (prompt.spec and prompt.spec["include"]):
            raise PromptError(
                f"{source}: prompt {prompt.text!r} asks for no object, so there are no masks; credit truth takes "
                "prompts whose records include one"
            )


def _colorless(prompt: Prompt) -> Prompt:
    """The prompt without the colours of its record, so that no detector need name them."""
    spec: Mapping[str, Any] = prompt.spec or {}
    clauses = [{k: v for k, v in c.items() if k != "color"} for c in spec["include"]]
    return replace(prompt, spec={**spec, "include": clauses})


def _check_world(world: str, prompts: Sequence[Prompt]) -> None:
    from ..worlds.world import find_world

    names = find_world(world).grammar.names
    known = ", ".join(names) if len(names) < 12 else f"it knows {len(names)} classes"
    for prompt in prompts:
        for clause in (prompt.spec or {})["include"]:
            if clause["class"] not in names:
                raise PromptError(
                    f"prompt {prompt.text!r} asks for {clause['class']!r}, which the {world} detector does not know "
                    f"({known}); name another with --detector, such as mask2former"
                )


def load_detector(
    name: str = "shapes", **params: Any
) -> tuple[Callable[..., Any], Callable[[Sequence[Prompt]], None]]:
    """The detector of an evaluation: whatever the geneval reward can be built with.

    Args:
        name: shapes, things, mask2former, owlv2, grounding_dino, or package.module:function (a builder); "mask2former@FOLDER"
            takes the weights of a folder or hub id.
        params: other parameters of that reward, such as threshold or color_model.

    Returns:
        images (N, h, w, 3) uint8 and their N records to one {class: detections} per image; and what raises UserError
        for prompts that it cannot judge.

    Raises:
        UserError: it is unknown, or cannot be loaded.
    """
    from ..rewards import REWARDS

    kind, _, model = name.partition("@")
    given = {"detector": kind, **({"model": model} if model else {}), **params}
    builder = REWARDS["geneval"]
    reward: Any = builder(**check_params(builder, given, "detector"))
    return lambda images, specs: reward.find(from_uint8(images), specs), reward.check


def describe_world(world: str) -> Callable[[Rollout], Objects]:
    """What the detector of a world sees on each sample, with masks, and whether the prompt names it."""

    def describe(rollout: Rollout) -> Objects:
        from ..worlds.world import find_world

        found = find_world(world).detect(to_uint8(rollout.images), masks=True)
        return described(rollout.prompts, found)

    return describe


def described(
    prompts: Sequence[Prompt], found: Sequence[Mapping[str, Sequence[Detection]]]
) -> list[list[dict[str, Any]]]:
    """What a detector found on each sample, {class: objects}, as the run folder keeps it: with whether its prompt names it."""
    samples = []
    for prompt, objects in zip(prompts, found, strict=True):
        wanted = {c["class"] for c in prompt.spec["include"]} if prompt.spec else set()
        samples.append(
            [
                {
                    "name": name,
                    "color": d.color,
                    "confidence": d.confidence,
                    "box": list(d.box),
                    "mask": d.mask,
                    "prompted": name in wanted,
                }
                for name, detections in objects.items()
                for d in detections
            ]
        )
    return samples
