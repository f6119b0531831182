"""Credit truth of a model by name: its configuration, its parts, reports on disk. The measures are truth.py's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import api
from .config import Config, load_config
from .errors import ConfigError, PromptError
from .finetune import choose_trained
from .interfaces import Prompt
from .loading import run_of

Progress = Callable[[int, int], None]
DEFAULT_RECIPE = "shapes/grpo"


def truth_config(model: str, recipe: str | None = None, overrides: Sequence[str] = ()) -> Config:
    """How the model is sampled, scored and trained, with overrides on top.

    Args:
        model: name, model folder or run.
        recipe: a recipe or file; None = the configuration of the run that `model` names, else `shapes/grpo`.

    Raises:
        UserError: a wrong override, or a configuration that cannot be read.
    """
    if recipe is None:
        own = run_folder_of(model) / "config.yaml"
        recipe = str(own) if own.is_file() else DEFAULT_RECIPE
    found = load_config(recipe, overrides)
    return found.model_copy(update={"model": found.model.model_copy(update={"name": model})})


def run_folder_of(model: str) -> Path:
    """The folder in MODEL or MODEL@STEP."""
    path, _, step = model.rpartition("@")
    return Path(path if path and step.isdecimal() else model)


def truth_of(
    model: str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    credits: Sequence[str] = (),
    out: Path,
    progress: Progress = lambda done, of: None,
    **settings: Any,
) -> dict[str, Any]:
    """Measures the credit of one model and writes truth.json, truth.md and truth.png.

    Args:
        model: name, model folder or run (run@STEP).
        recipe, overrides: see `truth_config`.
        credits: as `parse_assigner` reads them; none = every entry of the table that needs no reference.
        out: the folder to write.
        settings: of `TruthSettings`.

    Returns:
        the content of truth.json.

    Raises:
        UserError: whatever is wrong, in one line; nothing is written then.
    """
    from .advantages import ADVANTAGES
    from .config import find_plugin
    from .truth import TruthSettings, measure, truth_prompts
    from .truth_assigners import default_assigners, parse_assigner
    from .truth_report import check_folder, write_report

    asked = TruthSettings(**settings)
    config = truth_config(model, recipe, overrides)
    assigners = [parse_assigner(text) for text in credits]
    left_out: dict[str, str] = {}
    if not credits:
        assigners, left_out = default_assigners()
    for name, part in config.reward.items():
        if part.normalize != "none":
            raise ConfigError(
                f"reward.{name}.normalize: {part.normalize!r} is refused: truth takes advantages of rewards as they "
                "are; use none"
            )
    prompts = api.load_prompt_set(config)
    _require_masks(truth_prompts(prompts, asked.per_task, asked.seed), config.prompts.source)
    reward = api.build_reward(config)
    reward.check(prompts)
    check_folder(out)
    policy = api.load_model(model)
    if run_of(model) is None:  # a run's weights are chosen already
        choose_trained(policy, config.tune, seed=0)
    advantage = find_plugin(config.advantage.name, ADVANTAGES, "advantage.name")
    found = measure(
        config,
        model=policy,
        reward=reward,
        advantage=partial(advantage, **config.advantage.params),
        prompts=prompts,
        describe=api.describe_shapes,
        assigners=assigners,
        settings=asked,
        progress=progress,
    )
    about = {
        "model": model,
        "policy": config.loss.policy,
        "cfg_scale": config.rollout.cfg_scale,
        "left_out": left_out,
    }
    write_report(found | about, out)
    return found | about


def _require_masks(prompts: Sequence[Prompt], source: str) -> None:
    """Raises PromptError if the detector of the embedded world cannot find what the prompts ask for."""
    from .shapes.detector import classes

    known = classes()
    for prompt in prompts:
        for clause in (prompt.spec or {}).get("include", []):
            if clause["class"] not in known:
                raise PromptError(
                    f"{source}: prompt {prompt.text!r} asks for {clause['class']!r}, of which there are no "
                    f"masks; credit truth knows {', '.join(known)}"
                )
