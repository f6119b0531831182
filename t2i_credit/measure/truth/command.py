"""Credit truth of a model by name: its configuration, its parts, reports on disk. The measures are those of measures.py
and, of text, of text.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...api.critic import fitted_critic
from ...api.models import measured_policy, run_of
from ...api.objects import find_finder, require_objects
from ...api.parts import build_maps, build_reward, load_prompt_set
from ...config.schema import Config, load_config
from ...config.values import with_section
from ...errors import ConfigError, ModelError
from ...run_folder.atomic import make_folder
from ...text.models import load_text
from ...training.critic.file import critic_file_of
from ...training.policy import Policy
from .assigners import default_assigners, parse_assigner
from .measures import Measurement, Progress, TruthSettings, truth_prompts
from .report import write_report
from .text import FIELDS, truth_of_text

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
        run = run_of(model)
        recipe = str(run[0] / "config.yaml") if run else DEFAULT_RECIPE
    found = load_config(recipe, overrides)
    return with_section(found, "model", name=model)


def truth_of(
    model: str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    credits: Sequence[str] = (),
    detector: str | None = None,
    threshold: float | None = None,
    out: Path,
    progress: Progress = lambda done, of: None,
    **settings: Any,
) -> dict[str, Any]:
    """Measures the credit of one model and writes truth.json, truth.md and truth.png.

    Args:
        model: name, model folder or run (run@STEP).
        recipe, overrides: see `truth_config`.
        credits: as `parse_assigner` reads them; none = every entry of the table that can be measured on the model.
        detector, threshold: who finds the objects, see `find_finder`; refused if no measure asks for masks.
        out: the folder to write.
        settings: of `TruthSettings`.

    Returns:
        the content of truth.json.

    Raises:
        UserError: whatever is wrong, in one line; nothing is written then.
    """
    asked = TruthSettings(**settings)
    config = truth_config(model, recipe, overrides)
    has_left = run_of(model) is not None
    critic_file = critic_file_of(config)
    can = {
        "has_left": has_left,
        "has_critic": critic_file is not None,
        "has_map": any(part.map is not None for part in config.reward.values()),
    }
    assigners = [parse_assigner(text, **can) for text in credits]
    left_out: dict[str, str] = {}
    if not credits:
        assigners, left_out = default_assigners(**can)
    _refuse_normalized(config)
    prompts = load_prompt_set(config)
    chosen = truth_prompts(prompts, asked.per_task, asked.seed)
    require_objects(chosen, config.prompts.source)
    if not asked.takes_masks and (detector is not None or threshold is not None):
        raise ConfigError(
            "--detector, --threshold: none of these measures asks for masks; leave out"
        )
    finder = find_finder(config, detector, threshold) if asked.takes_masks else None
    if finder:
        finder.check(chosen)
    reward = build_reward(config)
    maps = build_maps(config, reward)
    reward.check(prompts)
    make_folder(out)
    compared = any(one.entry.needs_reference for one in assigners)
    policy, reference = measured_policy(config, compared=compared)
    critic = fitted_critic(config, critic_file, policy) if critic_file else None
    if maps:
        maps.check(policy)
    found = Measurement(
        config,
        Policy.of(config, policy, reference),
        reward=reward,
        advantage=config.advantage.function,
        prompts=prompts,
        describe=finder.describe if finder else lambda rollout: [],
        assigners=assigners,
        settings=asked,
        maps=maps,
        progress=progress,
        valued=critic.valued if critic else lambda rollout, rewards: rollout,
    ).run()
    found |= {
        "model": model,
        "policy": config.loss.policy,
        "cfg_scale": config.rollout.cfg_scale,
        "detector": finder.name if finder else None,
        "left_out": left_out,
    }
    write_report(found, out)
    return found


def _refuse_normalized(config: Config) -> None:
    """Raises ConfigError if training would take advantages of other rewards than these."""
    for name, part in config.reward.items():
        if part.normalize != "none":
            raise ConfigError(
                f"reward.{name}.normalize: {part.normalize!r} is refused: truth takes advantages of rewards as they "
                "are; use none"
            )


def truth_of_text_model(
    model: str,
    *,
    credits: Sequence[str] = (),
    unused: Sequence[str] = (),
    out: Path,
    progress: Progress = lambda done, of: None,
    **settings: Any,
) -> dict[str, Any]:
    """Measures the credit of a text model on arithmetic and writes truth.json and truth.md.

    Args:
        model: "arithmetic", a folder, or a run on text (run@STEP).
        credits: as `parse_assigner` reads them; none = every entry of the table that a text has the fields for.
        unused: options that were given and mean something for images alone.
        out: the folder to write.
        settings: of `truth_of_text`.

    Returns:
        the content of truth.json.

    Raises:
        UserError: whatever is wrong, in one line; nothing is written then.
    """
    if unused:
        raise ConfigError(f"{', '.join(unused)}: for images alone; {model} is a text model")
    assigners = [parse_assigner(text, has_left=True) for text in credits]
    if not credits:
        assigners = [one for one in default_assigners()[0] if one.needs <= FIELDS]
    loaded, tokenizer = load_text(model)
    if tokenizer.tokenize("17+25*3:") != list("17+25*3:"):
        raise ModelError(f"model {model}: its tokens are no characters, which truth of text needs")
    make_folder(out)
    found = {"model": model}
    found |= truth_of_text(loaded, tokenizer, assigners, progress=progress, **settings)
    write_report(found, out)
    return found
