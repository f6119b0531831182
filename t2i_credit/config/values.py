"""The value types of the configuration: numbers with ranges, texts, choices, and what a section is."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
)

from ..prompts.written import expanded, is_null_word
from .messages import KeyProblem, show

LARGEST_SEED = 2**63 - 1
LARGEST_INTEGER = (
    2**31 - 1
)  # more is nobody's number of steps, images or tokens, and no library takes it


def _fits_32_bits(value: float) -> float:
    """Numbers meet tensors in float32, where these would be infinite, or zero."""
    if value and not 1e-30 <= abs(value) <= 1e30:
        raise ValueError(f"value {show(value)} is not allowed; 0, or from 1e-30 to 1e30 in size")
    return value


Float = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_fits_32_bits)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Whole = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
NonNegative = Annotated[Float, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
PositiveFraction = Annotated[Float, Field(gt=0, le=1)]
Decay = Annotated[Float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Place = Annotated[Text, AfterValidator(expanded)]  # a path, or a name that stands in its place
Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Tracker = Literal[
    "tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio"
]

Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], Strict(False)]


def knob(default: Any, meaning: str) -> Any:
    """A key of a section: its default, and the line that explains it."""
    return Field(default=default, description=meaning)


def refuse_null_word(value: Any, annotation: Any) -> Any:
    """The value, unless it is a text such as None where null is allowed: nobody means the word.

    Raises:
        ValueError: it is.
    """
    allowed = get_args(
        get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    )
    literal = any(value in get_args(kind) for kind in allowed)
    if type(None) in allowed and is_null_word(value) and not literal:
        raise ValueError(f"value {show(value)} is not allowed; did you mean null?")
    return value


class Section(BaseModel):
    """Frozen, no unknown keys, no silent conversion (a text is never taken for a number, or for null)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_null_word(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_null_word(value, cls.model_fields[info.field_name or ""].annotation)


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
