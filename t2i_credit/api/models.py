"""What a generator's name stands for: an embedded one, a folder, a run's checkpoint, a hub id, a function. Knows no task."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.plugins import PLUGIN, call, find_plugin
from ..config.schema import Config, parse_config
from ..errors import ModelError, RunError
from ..interfaces import plugin_errors, require_model
from ..prompts.records import WORLDS

_MOST_RUNS = 100  # that began from each other
CFG_SCALE = 2.0  # guidance of models that say nothing else, as in the embedded world's recipes


def load_model(name_or_path: str | os.PathLike[str], *, device: str | None = None) -> Any:
    """Loads a generator: an embedded one's name ("shapes"), a model folder, or a run folder.

    Args:
        name_or_path: of a run folder the newest checkpoint is taken; "runs/x@100" is that of step 100. A Hugging Face
            hub id is downloaded; "my_package.my_module:function" is called and gives the model.
        device: "cpu", "cuda", ...; None = a GPU if there is one.

    Returns:
        An `ImageTokenModel` in evaluation mode.

    Raises:
        ModelError: it is missing, damaged, of an architecture that is not supported, or a weight is not finite.
        RunError: the run has no such checkpoint.
    """
    from ..models import load_pretrained
    from ..models.files import require_finite
    from ..training.processes import local_device

    name = os.fspath(name_or_path)
    if run := run_of(name):
        model = _load_run(*run)
    elif PLUGIN.fullmatch(name):
        build = find_plugin(name, {}, "model.name")
        with plugin_errors(f"model {name}"):
            model = call(build, "model.name", name)
        model = require_model(model, f"model {name}")
    else:
        model = load_pretrained(name)
        require_finite(model.named_parameters(), name)
    return model.to(device or local_device()).eval()


def trainable_model(config: Config, model: Any = None, *, compared: bool) -> tuple[Any, Any]:
    """The model that a configuration trains, on its device, and the frozen one that it is compared with.

    It is made on the CPU, so that what cannot fit is refused before a GPU is filled.

    Args:
        config: which model, and what of it is trained.
        model: instead of the one that the configuration names; is changed.
        compared: whether there is to be a frozen one; None is in its place otherwise.

    Raises:
        ConfigError: what is to be trained is not there, or weights and optimizer are more than the device holds.
        ModelError, RunError: see `load_model`.
    """
    from ..training.processes import local_device, process_count, require_shardable
    from ..training.tune import adapter_layers, frozen_reference
    from .memory import OF_WEIGHTS, held_throughout, require_room

    device = local_device() if model is None else model.device
    model = load_model(config.model.name, device="cpu") if model is None else model
    _tune(model, config, seed=config.train.seed)
    if config.train.sharding == "full":
        require_shardable(model)
    copied = compared and not adapter_layers(model)
    needed = held_throughout(model, config, reference=copied, processes=process_count())
    least = max(needed["starting"], needed["weights"] + needed["optimizer"])
    require_room(least, str(device), OF_WEIGHTS)
    model = model.to(device)
    return model, frozen_reference(model) if compared else None


def measured_policy(config: Config, *, compared: bool) -> tuple[Any, Any]:
    """The model that a configuration names, as training would have it, and what it is compared with there.

    Args:
        config: a run is tuned as it was trained, any other model as this says.
        compared: whether a run's own beginning is wanted; None is in its place otherwise. Any other model has left
            nothing yet and is its own reference.

    Raises:
        ConfigError: what is to be trained is not there.
        ModelError, RunError: see `load_model`.
    """
    from ..training.processes import local_device
    from ..training.tune import frozen_reference

    run = run_of(config.model.name)
    if run is None:
        model = load_model(config.model.name, device="cpu")
        _tune(model, config, seed=config.train.seed)
        model = model.to(local_device()).eval()
        return model, model
    model = _begun(run[0])
    reference = frozen_reference(model) if compared else None
    _go_on(model, *run)
    model = model.to(local_device()).eval()
    return model, reference.to(local_device()) if reference else None


def check_model(name: str) -> None:
    """Refuses a name that stands for no generator, without loading one.

    Raises:
        ModelError: `load_model` knows no such model, or not its architecture.
        RunError: the run has no such checkpoint, or a damaged one.
    """
    from ..models import check_pretrained
    from ..run_folder.checkpoint import check_checkpoint

    if run := run_of(name):
        check_checkpoint(run[0] / "checkpoints", run[1])
    elif not PLUGIN.fullmatch(name):
        check_pretrained(name)


def split_step(name: str) -> tuple[str, int | None]:
    """A name such as runs/x@100 to the path and the step; None = the newest checkpoint."""
    path, _, step = name.rpartition("@")
    return (path, int(step)) if path and step.isdecimal() else (name, None)


def run_of(name: str) -> tuple[Path, int | None] | None:
    """The run folder that a name means, and the step it asks for; None if it is no run."""
    path, step = split_step(name)
    marks = (Path(path) / name for name in ("config.yaml", "environment.json"))
    return (Path(path), step) if any(mark.is_file() for mark in marks) else None


def usual_sampling(name: str) -> dict[str, Any]:
    """What a generator is sampled with unless somebody says otherwise: `cfg_scale`, a run's that of its training; of a described
    generator also the `temperature`, `top_k` and `top_p` that its description names.

    Raises:
        RunError: the run's configuration cannot be read.
        ModelError: the description cannot be.
    """
    from ..models.description import described

    if run_of(name) is None and (description := described(Path(name))) is not None:
        found = description.sampling.model_dump(exclude_none=True)
        return {"cfg_scale": CFG_SCALE, **found}
    return {"cfg_scale": float(_trained_with(name).get("cfg_scale", CFG_SCALE))}


def usual_world(name: str) -> str:
    """The embedded world that a generator was made for, whose prompts and detector evaluate it unless somebody says
    otherwise: that of the model which a run began with; the first one of any other model.

    Raises:
        RunError: the run's configuration cannot be read.
    """
    from ..models import world_of

    for _ in range(_MOST_RUNS):
        if run_of(name) is None:
            break
        name = str(_trained_with(name, "model").get("name", ""))
    return world_of(name) or WORLDS[0]


def began_with(name: str) -> str | None:
    """The name of the generator that a run began with; None of what is no run.

    Raises:
        RunError: the run's configuration cannot be read.
    """
    return base_name({"model": _trained_with(name, "model")})


def base_name(config: Mapping[str, Any]) -> str | None:
    """The generator that a run's configuration names; None where it names none."""
    section = config.get("model")
    found = section.get("name") if isinstance(section, Mapping) else None
    return found if isinstance(found, str) else None


def usual_negative(name: str) -> str | None:
    """The one negative prompt that a run was trained under; None = no such.

    Raises:
        RunError: the run's configuration cannot be read.
    """
    negative = _trained_with(name, "prompts").get("negative")
    return negative if isinstance(negative, str) else None


def usual_batch_size(name: str, most: int) -> int:
    """Samples in a forward pass, `most` unless a run was trained with fewer, as a small GPU may need.

    Raises:
        RunError: the run's configuration cannot be read.
    """
    return min(most, _trained_with(name).get("batch_size") or most)


def _trained_with(name: str, section: str = "rollout") -> dict[str, Any]:
    """A section of a run's configuration; {} of any other model."""
    from ..run_folder.reader import RunReader

    return RunReader(run[0]).config().get(section, {}) if (run := run_of(name)) else {}


def _tune(model: Any, config: Config, *, seed: int) -> None:
    """Gives a loaded model the number format, the trained parameters and the adapter of a configuration."""
    import torch

    from ..training.tune import cast_parameters, choose_trained, merge_adapter

    merge_adapter(model)  # of an earlier run that this one goes on from
    cast_parameters(model, getattr(torch, config.model.dtype))
    choose_trained(model, config.tune, seed=seed)


def _load_run(path: Path, step: int | None) -> Any:
    """The model of a run at a checkpoint, on the CPU; the moving average of its weights, if the run kept one."""
    model = _begun(path)
    _go_on(model, path, step)
    return model


def _begun(path: Path) -> Any:
    """The model that a run began from, on the CPU, tuned as the run had it."""
    from ..run_folder.reader import RunReader

    config = RunReader(path).config()
    try:
        name = config["model"]["name"]
    except (KeyError, TypeError):
        raise RunError(f"{path / 'config.yaml'}: model.name: missing") from None
    kept = parse_config(
        {section: config.get(section) or {} for section in ("model", "tune")},
        where=str(path / "config.yaml"),
    )
    try:
        model = load_model(name, device="cpu")  # which may be a run again
    except ModelError as error:
        looked = "" if os.path.isabs(name) or os.path.exists(name) else f" (looked in {Path.cwd()})"
        raise ModelError(f"{path / 'config.yaml'}: model.name: {error}{looked}") from None
    _tune(model, kept, seed=0)
    return model


def _go_on(model: Any, path: Path, step: int | None) -> None:
    """Gives the model that a run began from the weights of a checkpoint."""
    from ..run_folder.checkpoint import load_checkpoint
    from ..training.tune import load_trained

    saved = load_checkpoint(path / "checkpoints", step)
    load_trained(model, saved.extra.get("ema") or saved.model_state or {}, str(saved.path))
