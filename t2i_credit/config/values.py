"""The value types of the configuration: numbers with ranges, texts, choices, and what a section is."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

from .messages import KeyProblem, show

SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", re.ASCII)
LARGEST_SEED = 2**63 - 1


def _from_scientific(value: Any) -> Any:
    """YAML 1.1 reads 4e-4 as a text, because it has no decimal point."""
    if isinstance(value, str) and SCIENTIFIC.fullmatch(value):
        return float(value)
    return value


Float = Annotated[float, BeforeValidator(_from_scientific), Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
NonNegative = Annotated[Float, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
PositiveFraction = Annotated[Float, Field(gt=0, le=1)]
Decay = Annotated[Float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Tracker = Literal[
    "tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio"
]

Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], Strict(False)]


def knob(default: Any, meaning: str) -> Any:
    """A key of a section: its default, and the line that explains it."""
    return Field(default=default, description=meaning)


class Section(BaseModel):
    """Frozen, no unknown keys, no silent conversion (a text is never taken for a number)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class OpenSection(BaseModel):
    """A section whose further keys are the parameters of a function."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @property
    def params(self) -> dict[str, Any]:
        """The function's own parameters."""
        return dict(self.model_extra or {})


def distinct(value: tuple[str, ...] | None, if_empty: str = "") -> tuple[str, ...] | None:
    """Refuses a list that names something twice and, where `if_empty` says what to do instead, an empty one."""
    if value is None:
        return None
    if not value and if_empty:
        raise ValueError(f"value [] is not allowed; {if_empty}")
    if len(set(value)) < len(value):
        raise ValueError(f"value {show(list(value))} is not allowed; each name once")
    return value


def folder_name(value: str | None) -> str | None:
    """Refuses a name of a run that could not be a folder's on every machine."""
    if value is not None and not re.fullmatch(r"\w[\w.-]{0,99}", value, re.ASCII):
        allowed = "at most 100 letters, digits and . _ -, the first a letter or digit or _"
        raise KeyProblem("train.name", f"value {show(value)} is not allowed; {allowed}")
    return value


Settings = TypeVar("Settings", bound=Section)


def with_section(config: Settings, section: str, **changes: Any) -> Settings:
    """The configuration with keys of one section changed."""
    changed = getattr(config, section).model_copy(update=changes)
    return config.model_copy(update={section: changed})
