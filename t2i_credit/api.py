"""Introduces models, rewards and worlds to the core: from a configuration to a model, a reward, a trained run.

It computes nothing itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .config import Config, check_params, find_plugin, load_config, parse_config
from .errors import ConfigError, PromptError
from .interfaces import Prompt, Rollout
from .launch import (
    check_run_folder,
    out_of_memory,
    run_folder,
    run_path,
    slow_format,
    trackers,
    warn_of_changes,
    warn_of_repeats,
)
from .loading import load_model as load_model
from .loading import trainable_model
from .prompts import load_prompts, with_negative
from .references import References

WORLDS = ("shapes",)
Report = Callable[[int, Mapping[str, float]], None]


def load_prompt_set(config: Config) -> list[Prompt]:
    """The prompts of a configuration.

    Raises:
        PromptError: the file is missing, empty or wrong, or no prompt is left.
    """
    settings = config.prompts
    if settings.source in WORLDS:
        from .shapes.grammar import prompt_set

        found = prompt_set(settings.split, settings.tasks)
    else:
        found = load_prompts(settings.source)
        if settings.tasks is not None:
            found = [p for p in found if p.spec is not None and p.spec["tag"] in settings.tasks]
    if not found:
        raise PromptError(f"{settings.source}: no prompt of these tasks; train on others")
    return with_negative(found, settings.negative)


def build_reward(config: Config) -> Any:
    """The weighted reward of a configuration.

    Raises:
        ConfigError: an unknown reward or parameter.
    """
    from .rewards import REWARDS, WeightedReward

    parts = {}
    for name, entry in config.reward.items():
        builder = find_plugin(name, REWARDS, "reward")
        also = ("weight", "normalize", "heldout")
        params = check_params(builder, entry.params, f"reward.{name}", also=also)
        parts[name] = (0.0 if entry.heldout else entry.weight, builder(**params))
    return WeightedReward(parts)


def load_detector(
    name: str = "shapes", **params: Any
) -> tuple[Callable[..., Any], Callable[[Sequence[Prompt]], None]]:
    """The detector of an evaluation: whatever the geneval reward can be built with.

    Args:
        name: shapes, mask2former, owlv2, grounding_dino, or package.module:function (a builder); "mask2former@FOLDER"
            takes the weights of a folder or hub id.
        params: other parameters of that reward, such as threshold or color_model.

    Returns:
        images (N, h, w, 3) uint8 and their N records to one {class: detections} per image; and what raises UserError
        for prompts that it cannot judge.

    Raises:
        UserError: it is unknown, or cannot be loaded.
    """
    from .pixels import from_uint8
    from .rewards import REWARDS

    kind, _, model = name.partition("@")
    given = {"detector": kind, **({"model": model} if model else {}), **params}
    builder = REWARDS["geneval"]
    reward: Any = builder(**check_params(builder, given, "detector"))

    def detect(images: Any, specs: Sequence[Mapping[str, Any]]) -> Any:
        return reward.find(from_uint8(images), specs)

    return detect, reward.check


def describe_shapes(rollout: Rollout) -> list[list[dict[str, Any]]]:
    """What the detector sees on each sample, with masks, and whether the prompt names it."""
    from .pixels import to_uint8
    from .shapes.detector import detect
    from .truth_localisation import described

    return described(rollout.prompts, detect(to_uint8(rollout.images), masks=True))


@dataclass(frozen=True)
class Parts:
    """Everything that a training run is made of, built and checked."""

    config: Config
    model: Any
    reference: Any | None
    reward: Any
    prompts: list[Prompt]
    advantage: Callable[..., Any]
    credit: Any
    references: References | None = None


def _references(config: Config) -> References:
    """Where the golden references of a configuration come from."""
    if config.prompts.source in WORLDS:
        from .shapes.reference import reference

        return References(reference)
    return References(None)


@out_of_memory()
def prepare(config: Config, *, model: Any = None) -> Parts:
    """Builds and checks everything that a run needs, and writes nothing.

    Args:
        config: what to do.
        model: instead of the one that the configuration names; is changed.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    from .advantages import ADVANTAGES
    from .credit import CREDIT
    from .processes import process_count, require_enough_prompts
    from .sharding import refuse_foreign_sharding
    from .update import as_entry

    prompts = load_prompt_set(config)  # before anything large is loaded
    if config.prompts.per_step > len(prompts):
        raise ConfigError(
            f"prompts.per_step: {config.prompts.per_step} is not allowed; the set has {len(prompts)} prompts"
        )
    advantage = find_plugin(config.advantage.name, ADVANTAGES, "advantage.name")
    entry = as_entry(find_plugin(config.credit.name, CREDIT, "credit.name"))
    _require_trackers(config)
    refuse_foreign_sharding()
    require_enough_prompts(config.prompts.per_step, process_count())
    golden = _references(config)
    if config.rollout.gold:
        golden.check_files(prompts)
    reward = build_reward(config)
    reward.check(prompts)
    held = config.loss.kl_coef > 0 or entry.needs_reference
    model, reference = trainable_model(config, model, compared=held)
    if config.rollout.gold:
        golden.check_sizes(prompts, model)
    return Parts(
        config,
        model,
        reference,
        reward,
        prompts,
        partial(advantage, **config.advantage.params),
        entry,
        golden,
    )


def _require_trackers(config: Config) -> None:
    """accelerate drops a tracker whose package is missing without a word."""
    from accelerate.tracking import get_available_trackers

    known = {str(tracker) for tracker in get_available_trackers()}
    for tracker in config.train.trackers:
        if tracker not in known:
            raise ConfigError(
                f"train.trackers: '{tracker}' is not installed; pip install it, or use [tensorboard] or []"
            )


def forward_passes(parts: Parts) -> int:
    """Forward passes per image token and training step; see `passes_needed`."""
    from .passes import passes_needed

    return passes_needed(parts.config, parts.credit).total


def plan(parts: Parts) -> dict[str, Any]:
    """What a run will do, about how much memory it takes and how long: bytes are an estimate from the sizes of the model,
    seconds one from slices of a step that are run here.

    Raises:
        ConfigError: more memory than there is.
    """
    from .finetune import AdapterOff
    from .memory import estimate, require_room
    from .processes import local_device, process_count
    from .step_time import step_seconds, told

    config, model = parts.config, parts.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = model.grid[0] * model.grid[1]
    held, switched = parts.reference is not None, isinstance(parts.reference, AdapterOff)
    needed = estimate(model, config, reference=held and not switched, processes=process_count())
    require_room(needed["total"], local_device())
    with out_of_memory():
        spent = step_seconds(
            config,
            model=model,
            credit=parts.credit,
            reward=parts.reward,
            prompts=parts.prompts,
            processes=process_count(),
        )
    slow = slow_format(config, model.device.type)
    return {
        "model": config.model.name,
        **({"warning": slow} if slow else {}),
        "parameters trained": trained,
        "image tokens": f"{tokens} ({model.grid[0]} x {model.grid[1]}), {model.codebook_size} codes",
        "prompts": len(parts.prompts),
        "steps": config.train.steps,
        "samples per step": samples,
        "samples": samples * config.train.steps,
        "forward passes per token": forward_passes(parts),
        "reference model": ("held" if not switched else "adapter off") if held else "none",
        "memory, about": f"{needed['total'] / 2**20:.0f} MiB",
        "time per step, about": told(spent),
    }


def train(
    config: Config | Mapping[str, Any] | str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    report: Report = lambda step, metrics: None,
    warn: Callable[[str], None] = print,
) -> Path:
    """Fine-tunes a model as a configuration says.

    Args:
        config: a `Config`, a nested mapping, a YAML file, or the name of a shipped recipe ("shapes/gcpo").
        overrides: such as "optim.lr=3e-4"; only with a file or recipe.
        resume: continue the run of the same name at its newest checkpoint.
        report: called after each step with its number and metrics.
        warn: called with lines that the user should read.

    Returns:
        The run folder.

    Raises:
        UserError: whatever is wrong with the configuration, its files, the run folder, or the run itself.
    """
    if isinstance(config, (str, os.PathLike)):
        config = load_config(config, overrides)
    elif not isinstance(config, Config):
        config = parse_config(config)
    check_run_folder(config, resume=resume)
    return run_training(prepare(config), resume=resume, report=report, warn=warn)


def run_training(
    parts: Parts, *, resume: bool, report: Report, warn: Callable[[str], None]
) -> Path:
    """Trains what `prepare` built; see `train`."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from .measuring_objects import describe_as_rewarded
    from .trainer import Trainer

    config = parts.config
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    path = run_path(config)
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(
        mixed_precision=config.train.precision,
        log_with=list(config.train.trackers) or None,
        project_dir=str(path / "trackers"),
    )
    if slow := slow_format(config, accelerator.device.type):
        warn(slow)
    if resume and accelerator.is_main_process:
        warn_of_changes(path, config, warn)
        warn_of_repeats(path, warn)
    with (
        run_folder(accelerator, config, path, resume) as run,
        trackers(accelerator, config),
        out_of_memory("; then continue at the last checkpoint with --resume"),
    ):
        trainer = Trainer(
            config,
            model=parts.model.to(accelerator.device),
            reference=parts.reference.to(accelerator.device) if parts.reference else None,
            reward=parts.reward,
            advantage=parts.advantage,
            credit=parts.credit,
            prompts=parts.prompts,
            run=run,
            accelerator=accelerator,
            reference_image=parts.references or References(None),
            describe=describe_as_rewarded(config, parts.reward),
            report=report,
            warn=warn,
        )
        trainer.train()
    return path
