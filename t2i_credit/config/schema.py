"""Typed configuration: YAML and key=value overrides become one frozen `Config`, or one line that names the key.

A file holds only differences from the defaults, and may name another recipe that it differs from (`base:`). Here are
the keys, their ranges and what they must agree on. It loads no weights and builds no plug-in; a reward's parameters
are checked (by `check_params`) where rewards are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

from ..errors import ConfigError
from ..prompts.records import WORLDS
from ..yaml_text import write_yaml
from .files import read_tree
from .messages import KeyProblem, parse, show
from .plugins import PLUGIN, AdvantageConfig, CreditConfig
from .sections import (
    CriticConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PromptsConfig,
    RewardConfig,
    RolloutConfig,
    TrainConfig,
    TuneConfig,
)
from .values import Section

# keys of a reward that say how its map is made, and of which maps
MAP_KEYS = {
    "map_block": ("occlusion", "redraw"),
    "map_draws": ("redraw",),
    "map_batch": ("gradient", "occlusion", "redraw"),
}


class Config(Section):
    """The whole configuration of a run; see each section's fields for the keys."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    reward: dict[str, RewardConfig] = Field(default_factory=lambda: {"geneval": RewardConfig()})
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig)
    credit: CreditConfig = Field(default_factory=CreditConfig)
    critic: CriticConfig = Field(default_factory=CriticConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    tune: TuneConfig = Field(default_factory=TuneConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @field_validator("reward", mode="before")
    @classmethod
    def _reward_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if not value:
            raise KeyProblem("reward", "holds no reward; at least one is needed")
        for name in value:
            if not (isinstance(name, str) and (name.isidentifier() or PLUGIN.fullmatch(name))):
                allowed = "a short name such as geneval, or package.module:function"
                raise KeyProblem("reward", f"name {show(name)} is not allowed; {allowed}")
        return {name: {} if params is None else params for name, params in value.items()}

    @model_validator(mode="after")
    def _keys_agree(self) -> Config:
        for key, problem in disagreements(self):
            raise KeyProblem(key, problem)
        return self


def load_config(name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """The configuration of a file or a shipped recipe, with overrides such as `optim.lr=3e-4` on top.

    A section's keys are merged one by one with those of the `base`, with two exceptions: `reward: {...}` replaces all
    rewards (the override `reward.clip.weight=0.5` adds or edits one), and another `credit.name` or `advantage.name`
    starts its section afresh, because the parameters belong to the name. An empty section changes nothing.

    Raises:
        ConfigError: one line that names the file or the command line, the key, and what is allowed.
    """
    tree, where, origin = read_tree(os.fspath(name_or_path), overrides)
    if "grpo" in tree:
        raise ConfigError(f"{where}: is for text (section grpo); here one for images is needed")
    return parse(Config, tree, origin)


def parse_config(tree: Mapping[str, Any], *, where: str = "config") -> Config:
    """A nested mapping, as YAML gives it, to a `Config`.

    Args:
        tree: section -> key -> value; what is left out has its default.
        where: what to call the mapping in messages.

    Raises:
        ConfigError: one line.
    """
    return parse(Config, tree, lambda _: where)


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, every key written out; `load_config` reads it back as the same `Config`."""
    return write_yaml(config.model_dump(mode="json"))


def disagreements(config: Config) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for every pair of values that each are allowed, but not together."""
    yield from _of_the_loss(config)
    yield from _of_the_credit(config)
    yield from _of_the_critic(config)
    yield from _of_gold(config)
    yield from _of_the_reward(config)
    if config.train.micro_batch_size and config.train.micro_batch_tokens:
        yield "train.micro_batch_tokens", "is refused with train.micro_batch_size: one of the two"


def _of_the_loss(config: Config) -> Iterator[tuple[str, str]]:
    rollout, credit, loss = config.rollout, config.credit, config.loss
    if loss.ratio == "sequence" and not credit.entry.even:
        yield (
            "loss.ratio",
            f"'sequence' is refused with credit.name '{credit.name}': one ratio per image gives "
            "all its tokens the same gradient, and the credit cancels; use sequence_token",
        )
    cut = "top_k" if rollout.top_k > 0 else "top_p" if rollout.top_p < 1 else ""
    if cut and loss.policy == "guided" and loss.updates_per_rollout > 1:
        yield (
            f"rollout.{cut}",
            "truncated sampling is refused with loss.policy 'guided' and loss.updates_per_rollout "
            "above 1: the ratio would not be that of the sampled policy; use top_k 0 and top_p 1, "
            "or one update",
        )
    if loss.kl_weight == "credit" and loss.kl_coef == 0:
        yield (
            "loss.kl_weight",
            "'credit' is refused with loss.kl_coef 0: there is no KL term to weigh",
        )
    if loss.kl_form != "reverse" and loss.kl_coef == 0:
        yield (
            "loss.kl_form",
            f"'{loss.kl_form}' is refused with loss.kl_coef 0: there is no KL term",
        )


def _of_the_credit(config: Config) -> Iterator[tuple[str, str]]:
    credit, loss = config.credit, config.loss
    if credit.refresh and credit.entry.refresh:
        yield (
            "credit.refresh",
            f"true is refused with credit.name '{credit.name}': {credit.entry.refresh}",
        )
    if loss.kl_weight == "credit" and credit.entry.even:
        yield (
            "loss.kl_weight",
            f"'credit' is refused with credit.name '{credit.name}': it would halve the KL term everywhere; "
            "use half the kl_coef",
        )
    asks = "reward_map" in credit.entry.fields_needed(**credit.params)
    if asks and not any(part.map for part in config.reward.values()):
        yield (
            "credit.name",
            f"'{credit.name}' is refused: no part of the reward has a map; set reward.{next(iter(config.reward))}.map "
            "to gradient, objects, occlusion or redraw",
        )
    own_weights = credit.entry.has_own_kl_weights
    if loss.kl_weight == "credit" and credit.params.get("strength") == 0 and not own_weights:
        yield (
            "loss.kl_weight",
            "'credit' is refused with credit.strength 0: the credit is uniform, and it would halve the "
            "KL term everywhere; use half the kl_coef",
        )
    if loss.kl_coef > 0 and loss.kl_weight == "none" and credit.entry.needs_kl_weights:
        yield (
            "loss.kl_weight",
            f"'none' is refused with credit.name '{credit.name}' and a kl_coef: the method has its "
            "KL term on the critical tokens only; use kl_weight credit, or kl_coef 0",
        )


def _of_the_critic(config: Config) -> Iterator[tuple[str, str]]:
    credit, critic = config.credit, config.critic
    if not credit.has_critic:
        if critic.file is not None:
            yield "critic.file", f"is refused with credit.name '{credit.name}': it has no critic"
        return
    if critic.kind == "lora" and not config.tune.lora_rank:
        yield (
            "critic.kind",
            "'lora' is refused with tune.lora_rank 0: the base that it adapts would be trained; use head or copy",
        )
    if critic.kind == "copy" and config.tune.lora_rank:
        yield (
            "critic.kind",
            "'copy' is refused with tune.lora_rank above 0: a second model beside an adapter; use lora or head",
        )
    refused = {
        "rollout.gold": config.rollout.gold and "true: no critic knows a golden reference",
        "train.sharding": config.train.sharding == "full" and "'full': its parts are the policy's",
    }
    for key, why in refused.items():
        if why:
            value, _, reason = why.partition(": ")
            yield key, f"{value} is refused with credit.name '{credit.name}': {reason}"
    for name, part in config.reward.items():
        if part.normalize != "none":
            yield (
                f"reward.{name}.normalize",
                f"'{part.normalize}' is refused with credit.name '{credit.name}': its rewards lie between critic.least "
                "and critic.most; use none",
            )


def _of_gold(config: Config) -> Iterator[tuple[str, str]]:
    rollout, loss = config.rollout, config.loss
    if not rollout.gold:
        return
    if rollout.gold_reward <= rollout.fail_below:
        yield (
            "rollout.gold_reward",
            f"value {rollout.gold_reward} is not allowed; above rollout.fail_below "
            f"({rollout.fail_below}), or a golden reference would count as a failure",
        )
    if loss.ratio == "token":
        yield (
            "rollout.gold",
            "true is refused with loss.ratio 'token': a golden reference was never sampled token by "
            "token; use sequence, or sequence_token with token credit",
        )
    if loss.kl_coef > 0:
        yield (
            "rollout.gold",
            f"true is refused with loss.kl_coef {loss.kl_coef}: the KL term pulls the policy away "
            "from the golden reference; use kl_coef 0",
        )
    if config.prompts.source in WORLDS and config.prompts.split == "heldout":
        yield (
            "rollout.gold",
            "true is refused with prompts.split 'heldout': held-out compositions are never drawn, so "
            "none has a golden reference; use split train",
        )
    for name, part in config.reward.items():
        if part.normalize != "none":
            yield (
                "rollout.gold",
                f"true is refused with reward.{name}.normalize '{part.normalize}': a golden reference "
                "has a total reward and no parts to normalise; use normalize none",
            )


def _of_the_reward(config: Config) -> Iterator[tuple[str, str]]:
    if all(part.heldout for part in config.reward.values()):
        yield "reward", "holds only held-out parts; at least one must be trained on"
    for name, part in config.reward.items():
        for key, default in (("weight", 1.0), ("normalize", "none"), ("map", None)):
            if part.heldout and getattr(part, key) != default:
                yield (
                    f"reward.{name}.{key}",
                    f"value {getattr(part, key)!r} is refused with heldout: such a part is logged as "
                    "it is and never trained on",
                )
        for key, kinds in MAP_KEYS.items():
            if (
                getattr(part, key) != RewardConfig.model_fields[key].default
                and part.map not in kinds
            ):
                yield (
                    f"reward.{name}.{key}",
                    f"value {getattr(part, key)} is refused with map {show(part.map)}: it belongs to {' and '.join(kinds)}",
                )
    mapped = [name for name, part in config.reward.items() if part.map]
    for name in mapped:
        if len(mapped) > 1 and config.reward[name].normalize != "none":
            yield (
                f"reward.{name}.normalize",
                f"'{config.reward[name].normalize}' is refused with the maps of several parts: they are added up in "
                "units of the reward; use normalize none, or the map of one part",
            )
