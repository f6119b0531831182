"""What a run is made of, from its configuration: prompts, reward, model, advantage, credit. Computes nothing itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.plugins import check_params, find_plugin, require_call
from ..config.schema import Config
from ..config.sections import RewardConfig
from ..errors import ConfigError, PromptError, T2ICreditWarning, not_of_plugin, one_line
from ..interfaces import Prompt
from ..prompts.batches import with_negative
from ..prompts.files import load_prompts
from ..prompts.records import WORLDS
from .memory import out_of_memory
from .models import trainable_model

if TYPE_CHECKING:
    from ..training.critic.file import CriticFile
    from ..training.gold import References


def load_prompt_set(config: Config) -> list[Prompt]:
    """The prompts of a configuration.

    Raises:
        PromptError: the file is missing, empty or wrong, or no prompt is left.
    """
    settings = config.prompts
    if settings.source in WORLDS:
        from ..worlds.world import find_world

        found = find_world(settings.source).grammar.prompt_set(settings.split, settings.tasks)
    else:
        found = load_prompts(settings.source, column=settings.column)
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
    from ..rewards import REWARDS, WeightedReward

    parts = {}
    for name, entry in config.reward.items():
        builder = find_plugin(name, REWARDS, "reward")
        also = tuple(RewardConfig.model_fields)
        params = check_params(builder, entry.params, f"reward.{name}", also=also)
        parts[name] = (0.0 if entry.heldout else entry.weight, _built(builder, name, params))
    return WeightedReward(parts)


def build_maps(config: Config, reward: Any) -> Any | None:
    """Where the reward of a configuration looks, as a `RewardMaps`; None if no part says so.

    Args:
        config: of the run.
        reward: its `WeightedReward`.

    Raises:
        ConfigError: a part has no such map.
    """
    from ..rewards.maps import reward_maps

    how = config.rollout
    return reward_maps(reward, config.reward, sampling=how.sampling, batch_size=how.batch_size)


def _built(builder: Any, name: str, params: Mapping[str, Any]) -> Any:
    """A reward; a builder of the user's own may be no builder at all."""
    from ..rewards import REWARDS

    if name in REWARDS:
        return builder(**params)
    try:
        reward = builder(**params)
    except BaseException as error:
        if not_of_plugin(error):
            raise
        raise ConfigError(
            f"reward.{name}: cannot be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not callable(reward):
        raise ConfigError(f"reward.{name}: its builder gives {type(reward).__name__}, no function")
    require_call(reward, ("images", "prompts"), f"reward.{name}", name)
    return reward


def unread_by(model: Any, prompts: Sequence[Prompt]) -> list[str]:
    """Lines about what a generator does not read of its prompts, negative ones included.

    Raises:
        ModelError: one is too long for it.
    """
    texts = [text for p in prompts for text in (p.text, p.negative) if text is not None]
    return model.check(texts) if hasattr(model, "check") else []


def warn_of(lines: Iterable[str]) -> None:
    """Says what works, but not as it could."""
    for line in lines:
        warnings.warn(line, T2ICreditWarning, stacklevel=3)


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
    critic: CriticFile | None = None
    maps: Any | None = None


def _references(config: Config) -> References:
    """Where the golden references of a configuration come from."""
    from ..training.gold import References

    if config.prompts.source in WORLDS:
        from ..worlds.world import find_world

        return References(find_world(config.prompts.source).reference)
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
    from ..training.critic.file import critic_file_of
    from ..training.critic.network import require_features
    from ..training.processes import process_count, refuse_foreign_sharding, require_enough_prompts
    from ..training.tune import fingerprint

    prompts = load_prompt_set(config)  # before anything large is loaded
    if config.prompts.per_step > len(prompts):
        raise ConfigError(
            f"prompts.per_step: {config.prompts.per_step} is not allowed; the set has {len(prompts)} prompts"
        )
    advantage, entry = config.advantage.function, config.credit.entry
    _require_trackers(config)
    refuse_foreign_sharding()
    require_enough_prompts(config.prompts.per_step, process_count())
    critic = critic_file_of(config)
    golden = _references(config)
    if config.rollout.gold:
        golden.check_files(prompts)
    reward = build_reward(config)
    maps = build_maps(config, reward)
    warn_of(reward.check(prompts))
    held = config.loss.kl_coef > 0 or entry.needs_reference
    model, reference = trainable_model(config, model, compared=held)
    if maps:
        maps.check(model)
    warn_of(unread_by(model, prompts))
    if config.credit.has_critic:
        require_features(model)
    if critic is not None:
        critic.require_model(fingerprint(model))
    if config.rollout.gold:
        golden.check_sizes(prompts, model)
    return Parts(config, model, reference, reward, prompts, advantage, entry, golden, critic, maps)


def _require_trackers(config: Config) -> None:
    """accelerate drops a tracker whose package is missing without a word."""
    from accelerate.tracking import get_available_trackers

    known = {str(tracker) for tracker in get_available_trackers()}
    for tracker in config.train.trackers:
        if tracker not in known:
            raise ConfigError(
                f"train.trackers: '{tracker}' is not installed; pip install it, or use [tensorboard] or []"
            )
