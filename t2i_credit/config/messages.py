"""What is wrong with a configuration, in one line that names the key. Knows no section by name: the schema is an argument."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, one_line

COMMAND_LINE = "command line"
Schema = TypeVar("Schema", bound=BaseModel)

# What other trainers call our keys: the nearest spelling would miss these.
ELSEWHERE = {
    "learning_rate": "optim.lr",
    "beta": "loss.kl_coef",
    "kl_beta": "loss.kl_coef",
    "epsilon": "loss.clip_low",
    "epsilon_high": "loss.clip_high",
    "num_iterations": "loss.updates_per_rollout",
    "num_generations": "rollout.group_size",
    "guidance_scale": "rollout.cfg_scale",
    "cfg_weight": "rollout.cfg_scale",
    "max_steps": "train.steps",
    "max_train_steps": "train.steps",
    "output_dir": "train.out",
    "mixed_precision": "train.precision",
    "report_to": "train.trackers",
    "negative_prompt": "prompts.negative",
}


class KeyProblem(ConfigError):
    """A wrong key or value; the caller that knows the file puts its name in front.

    Attributes:
        key: dotted, such as `optim.lr`.
        problem: what is wrong, and what is allowed.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def parse(
    schema: type[Schema], tree: Mapping[str, Any], origin: Callable[[str], str] | None = None
) -> Schema:
    """A nested mapping, as YAML gives it, to a configuration.

    Args:
        schema: what it must hold.
        tree: section -> key -> value; what is left out has its default.
        origin: dotted key -> what to call the place that set it.

    Raises:
        ConfigError: one line; without `origin` a KeyProblem.
    """
    try:
        return schema.model_validate(dict(tree))
    except ValidationError as error:
        problem = _first_problem(error, schema)
    raise ConfigError(f"{origin(problem.key)}: {problem}") if origin else problem


def _first_problem(error: ValidationError, schema: type[BaseModel]) -> KeyProblem:
    """The first thing to mend: unknown keys before wrong values before values that do not agree."""
    details = error.errors()
    detail = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    inner = detail.get("ctx", {}).get("error")
    if isinstance(inner, KeyProblem):
        return inner
    path = tuple(plain(part) for part in detail["loc"] if isinstance(part, str))
    key = ".".join(path)
    if detail["type"] != "extra_forbidden":
        return KeyProblem(key, explain(detail))
    if len(path) == 1:
        allowed, front = list(schema.model_fields), ""
    else:
        allowed, front = list(fields_of(schema, path[0])), path[0]
    hint = _nearest_key(path[-1], allowed, front, schema)
    return KeyProblem(key, f"unknown key{hint} (allowed: {', '.join(allowed)})")


def fields_of(schema: type[BaseModel], section: str) -> dict[str, Any]:
    """The fields of a section; of a section that maps names to models (`reward`), those of one entry; none of a section
    that maps names to anything."""
    annotation: Any = schema.model_fields[section].annotation
    model = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    return dict(getattr(model, "model_fields", {}))


def _nearest_key(name: str, allowed: Iterable[str], front: str, schema: type[BaseModel]) -> str:
    """`; did you mean x?` for a key of this section or of any other, or nothing if none is near."""
    if name in ELSEWHERE:
        return f"; did you mean {ELSEWHERE[name]}?"
    places: dict[str, list[str]] = {}
    for section in schema.model_fields:
        for key in fields_of(schema, section):
            places.setdefault(key, []).append(f"{section}.{key}")
    if name in places and name not in ("name", "weight"):
        return f"; did you mean {' or '.join(places[name])}?"
    if here := did_you_mean(name, allowed, front):
        return here
    near = difflib.get_close_matches(name, places, n=1, cutoff=0.75)
    return f"; did you mean {places[near[0]][0]}?" if near else ""


def did_you_mean(name: str, allowed: Iterable[str], front: str = "") -> str:
    """`; did you mean x?`, or nothing if no allowed name is near; `front` is the section that holds them."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    prefix = f"{front}." if front else ""
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def explain(detail: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words."""
    kind, shown = detail["type"], show(detail["input"])
    context = detail.get("ctx", {})
    if kind == "value_error":
        return one_line(context["error"])
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "")
        return f"value {shown} is not allowed; one of {allowed}"
    wanted = {
        "string_type": "must be a text (put it in quotes)",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "model_type": "must be a mapping of keys",
        "dict_type": "must be a mapping of keys",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "finite_number": "must be finite",
        "string_too_short": "must not be empty",
        "string_unicode": "must be a text without halves of surrogate pairs",
    }.get(kind)
    message = wanted or one_line(detail["msg"]).replace("Input should be", "must be")
    return f"value {shown} is not allowed; {message}"


def show(value: Any) -> str:
    """A value as a part of one line: escaped and not too long."""
    try:
        shown = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        shown = "of too many digits"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def plain(name: str) -> str:
    """A key or path as a part of one line; escaped only if it must be."""
    return name if name and name.isprintable() and len(name) <= 300 else show(name)
