"""Every section of the configuration with its keys, their ranges and meanings. What keys must agree on is in schema.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict, field_validator, model_validator

from .messages import KeyProblem
from .values import (
    Count,
    Decay,
    Float,
    Fraction,
    Listed,
    NonNegative,
    OpenSection,
    Place,
    Positive,
    PositiveFraction,
    Section,
    Seed,
    Task,
    Text,
    Tracker,
    Whole,
    distinct,
    folder_name,
    knob,
)


class ModelConfig(Section):
    """The generator."""

    name: Place = knob(
        "shapes",
        "the generator: an embedded one's name, a folder, a hub id, a run, or package.module:function",
    )
    dtype: Literal["float32", "bfloat16"] = knob("float32", "number format of the loaded weights")


class PromptsConfig(Section):
    """What is asked of the generator."""

    source: Place = knob(
        "shapes",
        "a world's name, a file (.jsonl, .json, .txt, .csv, .tsv), or hf://datasets/owner/name/file",
    )
    column: Text | None = knob(
        None,
        "the column or key that holds the prompts; null = the one called prompt, prompts, caption or text",
    )
    split: Literal["train", "heldout"] = knob(
        "train", "which prompts of a world; heldout ones occur in no training data"
    )
    tasks: Listed[Task] | None = knob(None, "keep only prompts of these GenEval tasks; null = all")
    negative: str | None = knob(
        None, "one negative prompt for all; null = the prompt's own, or the null prompt"
    )
    per_step: Count = knob(12, "P, prompts in a step")
    balance: bool = knob(
        True,
        "the tasks of the prompts' records take turns, so that each is asked for equally often",
    )
    seed: Seed = knob(0, "seed of the order in which prompts are drawn")

    _distinct = field_validator("tasks")(lambda value: distinct(value, "null keeps all tasks"))


class RolloutConfig(Section):
    """How images are sampled for training."""

    group_size: Annotated[int, Field(ge=1, le=100_000)] = knob(
        12, "G, images sampled per prompt; at least 2"
    )
    cfg_scale: Annotated[Float, Field(ge=1)] = knob(
        2.0, "strength of classifier-free guidance; 1 = none"
    )
    temperature: Positive = knob(1.0, "divides the guided logits before sampling")
    top_k: Whole = knob(0, "sample among the k likeliest codes only; 0 = among all")
    top_p: PositiveFraction = knob(
        1.0, "sample within the likeliest codes of this total probability; 1 = all"
    )
    batch_size: Count | None = knob(
        None, "most images sampled in one forward pass; null = all of the step"
    )
    dynamic: bool = knob(
        False, "drop groups of equal rewards and sample other prompts until the step is full (DAPO)"
    )
    max_rounds: Count = knob(
        4, "dynamic: most rounds of sampling in a step, the first one included"
    )
    gold: bool = knob(
        False, "where a whole group fails, its last image gives way to a golden reference"
    )
    fail_below: Float = knob(0.0, "gold: an image has failed if its reward is at most this")
    gold_reward: Float = knob(1.0, "gold: the reward of a golden reference")

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


class RewardConfig(OpenSection):
    """One part of the reward: its weight, and whatever its builder takes."""

    weight: Float = knob(1.0, "factor of this part in the total reward")
    normalize: Literal["none", "running", "group"] = knob(
        "none", "before weighing: as it is, z-score over all images so far, or within the group"
    )
    heldout: bool = knob(False, "logged and never trained on")
    map: Literal["gradient", "objects", "occlusion", "redraw"] | None = knob(
        None,
        "how it is found out where this part looked: its gradient, a detector's right and wrong objects, blocks of tokens "
        "that show the picture's ground or are drawn afresh; null = not at all",
    )
    map_block: Annotated[int, Field(ge=1, le=64)] = knob(
        2, "occlusion, redraw: a block has so many tokens a side; at most half of the image's"
    )
    map_draws: Annotated[int, Field(ge=1, le=64)] = knob(
        1, "redraw: fresh draws of every block, each of which is judged"
    )
    map_batch: Count = knob(16, "most images decoded, and differentiated, together for the map")


class CriticConfig(Section):
    """What `credit: {name: value}` learns the values of prefixes with."""

    kind: Literal["head", "lora", "copy"] = knob(
        "head",
        "on the policy's features; on an adapter of its own over the frozen base; on a copy of the policy's backbone",
    )
    file: Place | None = knob(
        None, "what `t2i-credit fit-critic` wrote; null = learns from nothing"
    )
    width: Annotated[int, Field(ge=1, le=65_536)] = knob(256, "hidden units of its head")
    rank: Annotated[int, Field(ge=1, le=4096)] = knob(16, "lora: rank of its adapter")
    step_size: Annotated[Positive, Field(le=1)] = knob(3e-4, "its learning rate")
    updates: Whole = knob(
        4, "its optimizer steps in a step: one on the new images, the others on replayed ones"
    )
    replay: Count = knob(20, "steps whose images it learns from again")
    window: Annotated[int, Field(ge=3, le=1000)] = knob(
        10, "steps over which its explained variance is taken, on images before it learns from them"
    )
    least: Float = knob(0.0, "the least reward of an image; lower ones count as this")
    most: Float = knob(1.0, "the largest reward of an image; higher ones count as this")

    @model_validator(mode="after")
    def _is_a_range(self) -> CriticConfig:
        if self.least >= self.most:
            raise KeyProblem(
                "critic.most",
                f"value {self.most:g} is not allowed; above critic.least ({self.least:g})",
            )
        return self


class LossConfig(Section):
    """The policy-gradient loss."""

    policy: Literal["guided", "conditional"] = knob(
        "guided", "the trained distribution: as sampled with guidance, or without it"
    )
    ratio: Literal["token", "sequence", "sequence_token"] = knob(
        "token", "importance ratio per token, per image, or per image with token credit"
    )
    aggregate: Literal["token", "sequence", "constant"] = knob(
        "token", "mean over all tokens, over images' means, or over a fixed length"
    )
    clip_low: PositiveFraction = knob(0.2, "the ratio is clipped below at 1 - clip_low")
    clip_high: Positive = knob(0.2, "the ratio is clipped above at 1 + clip_high")
    kl_coef: NonNegative = knob(0.0, "weight of the KL term to the frozen reference; 0 = none")
    kl_weight: Literal["none", "credit"] = knob(
        "none", "credit: a weaker KL term on tokens of high credit"
    )
    kl_form: Literal["reverse", "forward", "jensen_shannon"] = knob(
        "reverse", "what the KL term measures by the taken token: k3, or as of 2606.21498"
    )
    updates_per_rollout: Count = knob(1, "optimizer steps on the same images")
    old: Literal["rollout", "recompute"] = knob(
        "rollout", "old log-probs: those kept in sampling, or one more pass"
    )
    ratio_guard: Positive | None = knob(
        1e-4, "stop if |log ratio| exceeds this before the first update; null = off"
    )


class TuneConfig(Section):
    """Full fine-tuning, chosen modules, or a LoRA adapter."""

    modules: Listed[Text] | None = knob(
        None,
        "train only these parts, such as generation_head or layers.23; null = all that the model trains",
    )
    lora_rank: Whole = knob(
        0, "rank of a LoRA adapter that is trained instead of weights; 0 = none"
    )
    lora_alpha: Positive = knob(32.0, "the adapter's change is scaled by lora_alpha / lora_rank")
    lora_targets: Listed[Text] | None = knob(
        None, "linear layers of the transformer that get an adapter, such as q_proj; null = all"
    )
    recompute: bool = knob(
        False, "gradient checkpointing: layers run again in the backward pass, in less memory"
    )
    ema: Decay | None = knob(
        None,
        "decay of a moving average of the trained weights, kept beside them and used afterwards; null = off",
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

    lr: Annotated[Positive, Field(le=1)] = knob(1e-4, "peak learning rate")
    betas: Annotated[tuple[Decay, Decay], Strict(False)] = knob(
        (0.9, 0.99), "AdamW's decay rates of both moments"
    )
    eps: Positive = knob(1e-8, "AdamW's epsilon")
    weight_decay: NonNegative = knob(0.0, "AdamW's weight decay")
    warmup_steps: Whole = knob(
        0, "steps over which the learning rate rises linearly; a shorter run ends on the way"
    )
    schedule: Literal["constant", "linear", "cosine"] = knob(
        "constant", "how the learning rate falls after the warm-up"
    )
    min_lr_fraction: Fraction = knob(
        0.05, "where the linear and cosine schedules end, as a fraction of lr"
    )
    max_grad_norm: Positive | None = knob(1.0, "gradients are scaled down to this norm; null = off")


class TrainConfig(Section):
    """The run."""

    steps: Count = knob(100, "training steps (rollouts)")
    seed: Seed = knob(0, "seed of all sampling noise")
    micro_batch_size: Count | None = knob(
        None, "most images in one forward and backward pass; null = all of the step"
    )
    micro_batch_tokens: Count | None = knob(
        None,
        "most image tokens in one forward and backward pass, of both branches where both are trained; "
        "null = as micro_batch_size says",
    )
    precision: Literal["no", "bf16"] = knob(
        "no", "mixed precision of sampling and of the training passes"
    )
    sharding: Literal["none", "full"] = knob(
        "none",
        "of several processes: each holds the whole model (none), or a part of it, of its gradients and of "
        "the optimizer's state (full)",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = knob(
        None, "CPU threads; null = torch's own choice"
    )
    trackers: Listed[Tracker] = knob(
        ("tensorboard",), "where metrics go beside metrics.jsonl; [] = nowhere else"
    )
    checkpoint_every: Count = knob(50, "steps between checkpoints")
    keep_checkpoints: Count = knob(2, "newest checkpoints that are kept")
    out: Place = knob("runs", "folder of all run folders")
    name: str | None = knob(None, "name of the run folder; left out = made from the recipe's name")

    _distinct = field_validator("trackers")(lambda value: distinct(value))

    _is_a_folder_name = field_validator("name")(folder_name)

    @field_validator("precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # an unquoted `no` is false in YAML 1.1


class LogConfig(Section):
    """What the run folder keeps of a step."""

    samples_every: Count = knob(10, "steps between kept images and credit maps")
    groups: Count = knob(2, "prompt groups kept of such a step")
    probes: Annotated[int, Field(ge=0, le=1000)] = knob(
        1, "fixed prompts sampled with fixed noise at such a step, never trained on"
    )
    alternatives: Annotated[int, Field(ge=0, le=8)] = knob(
        0,
        "likeliest other codes kept of every token of such images, with what each would show in its place",
    )
