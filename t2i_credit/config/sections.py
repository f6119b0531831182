"""Every section of the configuration with its keys, their ranges and meanings. What keys must agree on is in schema.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from .messages import KeyProblem
from .values import (
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

Names = Annotated[tuple[Text, ...], Strict(False)]


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


class TuneConfig(Section):
    """Full fine-tuning, chosen modules, or a LoRA adapter."""

    modules: Names | None = Field(
        default=None,
        description="train only these parts, such as generation_head or layers.23; null = all that the model trains",
    )
    lora_rank: Annotated[int, Field(ge=0)] = Field(
        default=0, description="rank of a LoRA adapter that is trained instead of weights; 0 = none"
    )
    lora_alpha: Positive = Field(
        default=32.0, description="the adapter's change is scaled by lora_alpha / lora_rank"
    )
    lora_targets: Names | None = Field(
        default=None,
        description="linear layers of the transformer that get an adapter, such as q_proj; null = all",
    )
    recompute: bool = Field(
        default=False,
        description="gradient checkpointing: layers run again in the backward pass, in less memory",
    )
    ema: Annotated[Float, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="decay of a moving average of the trained weights, kept beside them and used afterwards; null = off",
    )

    @field_validator("modules", "lora_targets")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return distinct(value, "null takes all")

    @model_validator(mode="after")
    def _one_way(self) -> TuneConfig:
        if self.lora_rank and self.modules is not None:
            raise KeyProblem(
                "tune.modules",
                "is refused with tune.lora_rank above 0: an adapter is trained and no weight beside it, so that the "
                "reference is the model with the adapter switched off",
            )
        if self.lora_targets is not None and not self.lora_rank:
            raise KeyProblem("tune.lora_targets", "is refused with tune.lora_rank 0: no adapter")
        return self


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
