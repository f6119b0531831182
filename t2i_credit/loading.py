"""What a generator's name stands for: an embedded one, a folder, a run's checkpoint, a hub id, a function. Knows no task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .config import Config, find_plugin, parse_config
from .config_plugins import PLUGIN
from .errors import RunError


def load_model(name_or_path: str | os.PathLike[str], *, device: str | None = None) -> Any:
    """Loads a generator: an embedded one's name ("shapes"), a model folder, or a run folder.

    Args:
        name_or_path: of a run folder the newest checkpoint is taken; "runs/x@100" is that of step 100. A Hugging Face
            hub id is downloaded; "my_package.my_module:function" is called and gives the model.
        device: "cpu", "cuda", ...; None = a GPU if there is one.

    Returns:
        An `ImageTokenModel` in evaluation mode.

    Raises:
        ModelError: it is missing, damaged, or of an architecture that is not supported.
        RunError: the run has no such checkpoint.
    """
    from .models import load_pretrained
    from .processes import local_device

    name = os.fspath(name_or_path)
    if run := run_of(name):
        model = _load_run(*run)
    elif PLUGIN.fullmatch(name):
        model = find_plugin(name, {}, "model.name")()
    else:
        model = load_pretrained(name)
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
    import torch

    from .finetune import (
        adapter_layers,
        cast_parameters,
        choose_trained,
        frozen_reference,
        merge_adapter,
    )
    from .memory import OF_WEIGHTS, held_throughout, require_room
    from .processes import local_device, process_count
    from .sharding import require_shardable

    device = local_device() if model is None else model.device
    model = load_model(config.model.name, device="cpu") if model is None else model
    merge_adapter(model)  # of an earlier run that this one goes on from
    cast_parameters(model, getattr(torch, config.model.dtype))
    choose_trained(model, config.tune, seed=config.train.seed)
    if config.train.sharding == "full":
        require_shardable(model)
    copied = compared and not adapter_layers(model)
    needed = held_throughout(model, config, reference=copied, processes=process_count())
    least = max(needed["starting"], needed["weights"] + needed["optimizer"])
    require_room(least, str(device), OF_WEIGHTS)
    model = model.to(device)
    return model, frozen_reference(model) if compared else None


def check_model(name: str) -> None:
    """Refuses a name that stands for no generator, without loading one.

    Raises:
        ModelError: `load_model` knows no such model, or not its architecture.
        RunError: the run has no such checkpoint.
    """
    from .checkpoint import find_checkpoint
    from .models import check_pretrained

    if run := run_of(name):
        find_checkpoint(run[0] / "checkpoints", run[1])
    elif not PLUGIN.fullmatch(name):
        check_pretrained(name)


def split_step(name: str) -> tuple[str, int | None]:
    """A name such as runs/x@100 to the path and the step; None = the newest checkpoint."""
    path, _, step = name.rpartition("@")
    return (path, int(step)) if path and step.isdecimal() else (name, None)


def run_of(name: str) -> tuple[Path, int | None] | None:
    """The run folder that a name means, and the step it asks for; None if it is no run."""
    path, step = split_step(name)
    return (Path(path), step) if (Path(path) / "config.yaml").is_file() else None


def _load_run(path: Path, step: int | None) -> Any:
    """The model of a run at a checkpoint, on the CPU; the moving average of its weights, if the run kept one."""
    import torch

    from .checkpoint import load_checkpoint
    from .finetune import cast_parameters, choose_trained, merge_adapter
    from .run_folder import RunReader
    from .trainer import load_trained

    config = RunReader(path).config()
    try:
        name = config["model"]["name"]
    except (KeyError, TypeError):
        raise RunError(f"{path / 'config.yaml'}: model.name: missing") from None
    kept = parse_config(
        {section: config.get(section) or {} for section in ("model", "tune")},
        where=str(path / "config.yaml"),
    )
    model = load_model(name, device="cpu")  # which may be a run again
    merge_adapter(model)
    cast_parameters(model, getattr(torch, kept.model.dtype))
    choose_trained(model, kept.tune, seed=0)
    saved = load_checkpoint(path / "checkpoints", step)
    load_trained(model, saved.extra.get("ema") or saved.model_state or {}, str(saved.path))
    return model
