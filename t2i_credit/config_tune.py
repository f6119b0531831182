"""What of the model is trained, and how its memory is saved: the section `tune` of the configuration. Touches no model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict, field_validator, model_validator

from .config_messages import KeyProblem
from .config_types import Float, Positive, Section, Text, distinct

Names = Annotated[tuple[Text, ...], Strict(False)]


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
