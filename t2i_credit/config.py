"""Typed configuration: YAML and key=value overrides become one frozen `Config`, or one line that names the key.

A file holds only differences from the defaults, and may name another recipe that it differs from (`base:`). Here are
the keys, their ranges and what they must agree on. It loads no weights and builds no plug-in; a reward's parameters
are checked (by `check_params`) where rewards are known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from .config_combinations import disagreements
from .config_describe import KeyRow, key_rows
from .config_files import list_recipes, read_tree
from .config_messages import KeyProblem, first_problem, show
from .config_plugins import PLUGIN, AdvantageConfig, CreditConfig, check_params, find_plugin
from .config_tune import TuneConfig
from .config_types import (
    Count,
    Float,
    Fraction,
    NonNegative,
    Positive,
    Section,
    Seed,
    Task,
    Text,
    Tracker,
    distinct,
    folder_name,
)
from .config_yaml import write_yaml
from .errors import ConfigError

__all__ = [
    "Config",
    "KeyProblem",
    "KeyRow",
    "check_params",
    "describe",
    "find_plugin",
    "list_recipes",
    "load_config",
    "parse_config",
    "to_yaml",
]


class ModelConfig(Section):
    """The generator."""

    name: Text = Field(
        default="shapes",
        description="the generator: an embedded one's name, a folder, a hub id, a run, or package.module:function",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="number format of the loaded weights"
    )


class PromptsConfig(Section):
    """What is asked of the generator."""

    source: Text = Field(
        default="shapes",
        description="a world's name, a JSONL file, or hf://datasets/owner/name/file",
    )
    split: Literal["train", "heldout"] = Field(
        default="train",
        description="which prompts of a world; heldout ones occur in no training data",
    )
    tasks: Annotated[tuple[Task, ...], Strict(False)] | None = Field(
        default=None, description="keep only prompts of these GenEval tasks; null = all"
    )
    negative: str | None = Field(
        default=None,
        description="one negative prompt for all; null = the prompt's own, or the null prompt",
    )
    per_step: Count = Field(default=12, description="P, prompts in a step")
    balance: bool = Field(
        default=True,
        description="the tasks of the prompts' records take turns, so that each is asked for equally often",
    )
    seed: Seed = Field(default=0, description="seed of the order in which prompts are drawn")

    _distinct = field_validator("tasks")(lambda value: distinct(value, "null keeps all tasks"))


class RolloutConfig(Section):
    """How images are sampled for training."""

    group_size: Count = Field(default=12, description="G, images sampled per prompt; at least 2")
    cfg_scale: Annotated[Float, Field(ge=1)] = Field(
        default=2.0, description="strength of classifier-free guidance; 1 = none"
    )
    temperature: Positive = Field(
        default=1.0, description="divides the guided logits before sampling"
    )
    top_k: Annotated[int, Field(ge=0)] = Field(
        default=0, description="sample among the k likeliest codes only; 0 = among all"
    )
    top_p: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="sample within the likeliest codes of this total probability; 1 = all",
    )
    batch_size: Count | None = Field(
        default=None, description="most images sampled in one forward pass; null = all of the step"
    )
    dynamic: bool = Field(
        default=False,
        description="drop groups of equal rewards and sample other prompts until the step is full (DAPO)",
    )
    max_rounds: Count = Field(
        default=4, description="dynamic: most rounds of sampling in a step, the first one included"
    )
    gold: bool = Field(
        default=False,
        description="where a whole group fails, its last image gives way to a golden reference",
    )
    fail_below: Float = Field(
        default=0.0, description="gold: an image has failed if its reward is at most this"
    )
    gold_reward: Float = Field(default=1.0, description="gold: the reward of a golden reference")

    @property
    def sampling(self) -> dict[str, Any]:
        """How each token is drawn, as `sample_rollout` takes it."""
        return {
            name: getattr(self, name) for name in ("cfg_scale", "temperature", "top_k", "top_p")
        }

    @field_validator("group_size")
    @classmethod
    def _has_spread(cls, value: int) -> int:
        if value == 1:
            raise KeyProblem(
                "rollout.group_size",
                "value 1 is not allowed; at least 2, because an image is judged against the "
                "others of its group and alone has no advantage",
            )
        return value


class RewardConfig(BaseModel):
    """One part of the reward: its weight, and whatever its builder takes."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    weight: Float = Field(default=1.0, description="factor of this part in the total reward")
    normalize: Literal["none", "running", "group"] = Field(
        default="none",
        description="before weighing: as it is, z-score over all images so far, or within the group",
    )
    heldout: bool = Field(default=False, description="logged and never trained on")

    @property
    def params(self) -> dict[str, Any]:
        """The builder's own parameters."""
        return dict(self.model_extra or {})


class LossConfig(Section):
    """The policy-gradient loss."""

    policy: Literal["guided", "conditional"] = Field(
        default="guided",
        description="the trained distribution: as sampled with guidance, or without it",
    )
    ratio: Literal["token", "sequence", "sequence_token"] = Field(
        default="token",
        description="importance ratio per token, per image, or per image with token credit",
    )
    aggregate: Literal["token", "sequence", "constant"] = Field(
        default="token",
        description="mean over all tokens, over images' means, or over a fixed length",
    )
    clip_low: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=0.2, description="the ratio is clipped below at 1 - clip_low"
    )
    clip_high: Positive = Field(
        default=0.2, description="the ratio is clipped above at 1 + clip_high"
    )
    kl_coef: NonNegative = Field(
        default=0.0, description="weight of the KL term to the frozen reference; 0 = none"
    )
    kl_weight: Literal["none", "credit"] = Field(
        default="none", description="credit: a weaker KL term on tokens of high credit"
    )
    updates_per_rollout: Count = Field(default=1, description="optimizer steps on the same images")
    old: Literal["rollout", "recompute"] = Field(
        default="rollout", description="old log-probs: those kept in sampling, or one more pass"
    )
    ratio_guard: Positive | None = Field(
        default=1e-4,
        description="stop if |log ratio| exceeds this before the first update; null = off",
    )


class OptimConfig(Section):
    """AdamW and its schedule."""

    lr: Positive = Field(default=1e-4, description="peak learning rate")
    betas: Annotated[
        tuple[Annotated[Float, Field(ge=0, lt=1)], Annotated[Float, Field(ge=0, lt=1)]],
        Strict(False),
    ] = Field(default=(0.9, 0.99), description="AdamW's decay rates of both moments")
    eps: Positive = Field(default=1e-8, description="AdamW's epsilon")
    weight_decay: NonNegative = Field(default=0.0, description="AdamW's weight decay")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="steps over which the learning rate rises linearly; a shorter run ends on the way",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="how the learning rate falls after the warm-up"
    )
    min_lr_fraction: Fraction = Field(
        default=0.05, description="where the linear and cosine schedules end, as a fraction of lr"
    )
    max_grad_norm: Positive | None = Field(
        default=1.0, description="gradients are scaled down to this norm; null = off"
    )


class TrainConfig(Section):
    """The run."""

    steps: Count = Field(default=100, description="training steps (rollouts)")
    seed: Seed = Field(default=0, description="seed of all sampling noise")
    micro_batch_size: Count | None = Field(
        default=None,
        description="most images in one forward and backward pass; null = all of the step",
    )
    micro_batch_tokens: Count | None = Field(
        default=None,
        description="most image tokens in one forward and backward pass, of both branches where both are trained; "
        "null = as micro_batch_size says",
    )
    precision: Literal["no", "bf16"] = Field(
        default="no", description="mixed precision of sampling and of the training passes"
    )
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="of several processes: each holds the whole model (none), or a part of it, of its gradients and of "
        "the optimizer's state (full)",
    )
    threads: Count | None = Field(
        default=None, description="CPU threads; null = torch's own choice"
    )
    trackers: Annotated[tuple[Tracker, ...], Strict(False)] = Field(
        default=("tensorboard",),
        description="where metrics go beside metrics.jsonl; [] = nowhere else",
    )
    checkpoint_every: Count = Field(default=50, description="steps between checkpoints")
    keep_checkpoints: Count = Field(default=2, description="newest checkpoints that are kept")
    out: Text = Field(default="runs", description="folder of all run folders")
    name: str | None = Field(
        default=None, description="name of the run folder; left out = made from the recipe's name"
    )

    _distinct = field_validator("trackers")(lambda value: distinct(value))

    _is_a_folder_name = field_validator("name")(folder_name)

    @field_validator("precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # an unquoted `no` is false in YAML 1.1


class LogConfig(Section):
    """What the run folder keeps of a step."""

    samples_every: Count = Field(
        default=10, description="steps between kept images and credit maps"
    )
    groups: Count = Field(default=2, description="prompt groups kept of such a step")
    probes: Annotated[int, Field(ge=0)] = Field(
        default=1,
        description="fixed prompts sampled with fixed noise at such a step, never trained on",
    )


def _default_reward() -> dict[str, RewardConfig]:
    return {"geneval": RewardConfig()}


class Config(Section):
    """The whole configuration of a run; see each section's fields for the keys."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    reward: dict[str, RewardConfig] = Field(default_factory=_default_reward)
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig)
    credit: CreditConfig = Field(default_factory=CreditConfig)
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
    return parse_config(tree, where=where, origin=origin)


def parse_config(
    tree: Mapping[str, Any], *, where: str = "config", origin: Callable[[str], str] | None = None
) -> Config:
    """A nested mapping, as YAML gives it, to a `Config`.

    Args:
        tree: section -> key -> value; what is left out has its default.
        where: what to call the mapping in messages.
        origin: dotted key -> what to call the place that set it.

    Raises:
        ConfigError: one line.
    """
    try:
        return Config.model_validate(dict(tree))
    except ValidationError as error:
        problem = first_problem(error, Config)
    place = origin(problem.key) if origin else where
    raise ConfigError(f"{place}: {problem}")


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, every key written out; `load_config` reads it back as the same `Config`."""
    return write_yaml(config.model_dump(mode="json"))


def describe(*, plugins: bool = True) -> list[KeyRow]:
    """Every key with its type, default and one line of explanation, in the order of the sections.

    Args:
        plugins: with the parameters of all shipped advantages, credits and rewards (this imports torch).
    """
    return key_rows(Config, plugins=plugins)
