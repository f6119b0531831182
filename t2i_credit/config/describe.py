"""The configuration explained: every key with its type, default and meaning. Reads no file and prints nothing."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from ..yaml_text import write_yaml
from .messages import fields_of
from .plugins import PluginSection, function_of, keyword_parameters
from .schema import Config
from .values import LARGEST_SEED

# The parameters of shipped plug-ins, by name: a name means the same wherever it occurs.
PARAMETERS = {
    "eps": "added to the standard deviation of a group, in units of reward",
    "strength": "1 = the credit as it is, 0 = uniform, between them a mixture",
    "kind": "guidance_contrast: how the contrast of both prompts is measured; visual: what of a token's look; reward_map: size or sign",
    "shape": "how contrasts become weights of mean 1",
    "top": "power_rank: this fraction of the tokens ...",
    "mass": "power_rank: ... holds this fraction of the credit",
    "temperature": "softmax: smaller = sharper",
    "rho": "fraction of the tokens that get credit",
    "fraction": "share of the tokens that each of the three kinds of critical tokens takes",
    "guided": "entropy of the guided distribution instead of the conditional one",
    "tau": "temperature of the softmax over tokens; smaller = sharper",
    "kappa": "exponent of the entropy; 0 ignores it",
    "change": "what the critic's V_{t+1} - V_t counts beside the advantage, both in units of the group's spread",
    "excluded": "share of the tokens, the surest ones, that get nothing from the reward",
    "above": "the bonus goes to tokens whose entropy is above this quantile of their image's",
    "bonus": "of a token: this times its entropy / ln V, in units of the advantage ...",
    "limit": "... but at most this times the size of the advantage",
    "direction": "of the bonus: positive as published, or that of the advantage (ours)",
}


class KeyRow(NamedTuple):
    """One key of the configuration; all texts."""

    key: str
    type: str
    default: str
    explanation: str


def describe(
    rewards: Mapping[str, Callable[..., Any]] | None = None, *, plugins: bool = True
) -> list[KeyRow]:
    """Every key with its type, default and one line of explanation, in the order of the sections.

    Args:
        rewards: {name: builder} of the rewards whose keys are explained, too.
        plugins: with the parameters of all shipped advantages and credits (this imports torch).
    """
    rows = []
    for section in Config.model_fields:
        for key, field in fields_of(Config, section).items():
            dotted = f"reward.<name>.{key}" if section == "reward" else f"{section}.{key}"
            kind = _type_text(Annotated[(field.annotation, *field.metadata, None)])
            rows.append(KeyRow(dotted, kind, _yaml_text(field.default), field.description or ""))
        annotation = Config.model_fields[section].annotation
        if section == "reward":
            rows += _reward_rows(rewards or {})
        if plugins and inspect.isclass(annotation) and issubclass(annotation, PluginSection):
            rows += _parameter_rows(annotation)
    return rows


def _parameter_rows(section: type[PluginSection]) -> list[KeyRow]:
    """One row for every parameter; those that several plug-ins share appear once."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for name, plugin in section.table().items():
        for key, parameter in keyword_parameters(function_of(plugin)).items():
            default = "" if parameter.default is parameter.empty else _yaml_text(parameter.default)
            shared = (key, _type_text(parameter.annotation), default)
            owners.setdefault(shared, []).append(name)
    return [
        KeyRow(
            f"{section.section}.{key}",
            kind,
            default,
            f"{PARAMETERS.get(key, 'see its function')} ({', '.join(names)})",
        )
        for (key, kind, default), names in owners.items()
    ]


def _reward_rows(rewards: Mapping[str, Callable[..., Any]]) -> list[KeyRow]:
    """One row for every key of every reward; what it means stands in the docstring of its builder."""
    rows = []
    for name, build in rewards.items():
        meanings = _documented_arguments(inspect.getdoc(build) or "")
        for key, parameter in keyword_parameters(build).items():
            needed = parameter.default is parameter.empty
            default = "required" if needed else _yaml_text(parameter.default)
            kind = _type_text(parameter.annotation)
            rows.append(KeyRow(f"reward.{name}.{key}", kind, default, meanings[key]))
    return rows


def _documented_arguments(docstring: str) -> dict[str, str]:
    """{argument: its text on one line} of the section Args."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n\n", section)[0].replace("\n        ", " ")
    entries = [line.strip().partition(": ") for line in section.splitlines()]
    return {name: text for names, _, text in entries for name in names.split(", ")}


def _yaml_text(value: Any) -> str:
    """A value as it is written in a file."""
    return write_yaml(list(value) if isinstance(value, tuple) else value, flow=True)


def _type_text(annotation: Any) -> str:
    """An annotation as users read it: `int >= 1 or null`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        limits = []
        for item in args[1:]:
            for constraint in getattr(item, "metadata", [item]):
                limits += [
                    f"{sign} {getattr(constraint, name)}"
                    for name, sign in signs.items()
                    if getattr(constraint, name, LARGEST_SEED) != LARGEST_SEED
                ]
        return " ".join([_type_text(args[0]), ", ".join(limits)]).strip()
    if origin is Literal:
        return " | ".join(args)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(arg) for arg in args)
    if origin is tuple:
        if args[-1] is ...:
            return f"list of {_type_text(args[0])}"
        return f"[{', '.join(_type_text(arg) for arg in args)}]"
    names = {type(None): "null", str: "text", bool: "true | false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
