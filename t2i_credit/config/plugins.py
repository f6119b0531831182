"""Plug-ins by name: their functions, and the sections whose further keys are those functions' parameters.

Tables are imported when a section is validated, so that the schema itself can be imported without torch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, get_args, get_origin
from typing import get_type_hints as _type_hints

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError, model_validator

from ..errors import UserError, one_line, ran_out
from .messages import KeyProblem, did_you_mean, explain, plain, show
from .values import Float, OpenSection, knob, refuse_null_word

if TYPE_CHECKING:
    from torch import Tensor

    from ..credit.entry import CreditEntry

PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def find_plugin(name: str, table: Mapping[str, Any], where: str) -> Any:
    """The plug-in called `name`: an entry of `table`, or what `package.module:function` imports.

    Args:
        where: dotted key that holds the name, for messages.

    Raises:
        KeyProblem: there is none.
    """
    if name in table:
        return table[name]
    if not PLUGIN.fullmatch(name):
        hint, allowed = did_you_mean(name, table), ", ".join([*table, "or package.module:function"])
        raise KeyProblem(where, f"unknown name {show(name)}{hint} (allowed: {allowed})")
    module_name, _, attribute = name.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        # called once as a trial, `sys:exit` or `signal:pause` would do what they are for
        raise KeyProblem(where, f"{name}: {module_name} is Python's own, it holds no plug-in")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # a module may raise what it likes, SystemExit included
        if isinstance(error, KeyboardInterrupt) or ran_out(error):
            raise
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        problem = f"{name}: {module_name} cannot be imported ({kind}{one_line(error)[:300]})"
        raise KeyProblem(where, problem) from None
    try:
        plugin = getattr(module, attribute, None)
        function = function_of(plugin)
    except Exception as error:  # of an object that answers for its own attributes
        said = f"{type(error).__name__}: {one_line(error)[:300]}"
        raise KeyProblem(where, f"{name}: cannot be looked at ({said})") from None
    if plugin is None:
        names = [key for key in vars(module) if not key.startswith("_")]
        problem = f"{name}: {module_name} has no {attribute}{did_you_mean(attribute, names)}"
        raise KeyProblem(where, problem)
    if not callable(function):
        raise KeyProblem(where, f"{name}: is no function")
    return plugin


def code_of(names: Iterable[str]) -> dict[str, str]:
    """{name: SHA-256 of the file that it lies in} of those that are functions of the user's own."""
    found = {}
    for name in names:
        if PLUGIN.fullmatch(name):
            module = importlib.import_module(name.partition(":")[0])
            file = getattr(module, "__file__", None)
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return found


def function_of(plugin: Any) -> Callable[..., Any]:
    """The function whose parameters are the schema: credit entries carry theirs as `assign`."""
    function: Callable[..., Any] = getattr(plugin, "assign", plugin)
    return function


def require_call(fn: Callable[..., Any], given: Sequence[str], where: str, name: str) -> None:
    """Raises KeyProblem unless a function can be called with these positional arguments; what it gives is seen when it is."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # of some written in C nobody knows
        return
    named = {key: None for key, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        called = f"{name}({', '.join(given)})"
        raise KeyProblem(where, f"cannot be called as {called}: {one_line(error)}") from None


def call(fn: Callable[..., Any], where: str, name: str) -> Any:
    """What a function of no arguments gives. Raises KeyProblem where it takes some, also where only calling it tells."""
    require_call(fn, (), where, name)
    try:
        return fn()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # from inside of it
        raise KeyProblem(where, f"cannot be called as {name}(): {one_line(error)}") from None


def check_params(
    fn: Callable[..., Any],
    params: Mapping[str, Any],
    where: str,
    *,
    owner: str = "",
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Checks values against the keyword-only parameters of a function, by name, annotation and default.

    A parameter without annotation takes the type of its default. Ranges are the function's own business, unless the
    annotation states them (`Annotated[float, Field(ge=0)]`).

    Args:
        fn: the plug-in.
        params: values as they come from YAML.
        where: dotted key of the mapping that holds them, for messages (`credit`, `reward.clip`).
        owner: the plug-in's name, for messages.
        also: keys that are allowed beside them but are not the function's, for messages.

    Returns:
        every keyword-only parameter with its checked value or its default.

    Raises:
        KeyProblem: an unknown key, a value of the wrong type, or no value where there is no default.
    """
    known = keyword_parameters(fn)
    allowed = (*also, *known)
    for key in params:
        if key not in known:
            listed = ", ".join(allowed) or "none"
            hint = did_you_mean(key, allowed, where)
            whose = f" of '{owner}'" if owner else ""
            problem = f"unknown key{whose}{hint} (allowed: {listed})"
            raise KeyProblem(f"{where}.{plain(key)}", problem)
    values = {}
    for key, parameter in known.items():
        if key in params:
            values[key] = checked(parameter.annotation, params[key], f"{where}.{key}")
        elif parameter.default is parameter.empty:
            raise KeyProblem(f"{where}.{key}", "is missing, and has no default")
        else:
            values[key] = parameter.default
    return values


def checked(annotation: Any, value: Any, where: str) -> Any:
    """A value of this type, as configurations take it; raises KeyProblem."""
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        refuse_null_word(value, annotation)
        return TypeAdapter(_lenient(annotation), config=config).validate_python(value)
    except ValidationError as error:
        raise KeyProblem(where, explain(error.errors()[0])) from None
    except ValueError as error:
        raise KeyProblem(where, str(error)) from None


def keyword_parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, with their annotations resolved to types."""
    parameters: dict[str, inspect.Parameter] = {}
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # of some written in C nobody knows
        return parameters
    for key, parameter in signature.parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        annotation = parameter.annotation
        if annotation is parameter.empty:
            default = parameter.default
            annotation = Any if default is parameter.empty else type(default)
            annotation = Any | None if default is None else annotation
        names = getattr(inspect.unwrap(fn), "__globals__", {})
        holder = types.SimpleNamespace(__annotations__={key: annotation})
        try:
            annotation = _type_hints(holder, globalns=names, include_extras=True)[key]
        except NameError:  # imported for type checkers only
            annotation = Any
        parameters[key] = parameter.replace(annotation=annotation)
    return parameters


def _lenient(annotation: Any) -> Any:
    """The annotation, with floats as configurations take them (no NaN) and tuples given as lists."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is float:
        return Float
    if origin is Annotated:
        return Annotated[(_lenient(args[0]), *args[1:])]
    if origin in (Union, types.UnionType):
        return Union[tuple(_lenient(arg) for arg in args)]  # noqa: UP007
    if origin in (list, tuple, dict):
        inner = origin[tuple(arg if arg is ... else _lenient(arg) for arg in args)]
        return Annotated[inner, Strict(False)] if origin is tuple else inner
    return annotation


class PluginSection(OpenSection):
    """A section whose further keys are the keyword-only parameters of the function that it names, defaults filled in."""

    section: ClassVar[str]
    given: ClassVar[tuple[str, ...]]  # what the function is called with, beside its parameters

    @classmethod
    def table(cls) -> Mapping[str, Any]:
        """The plug-ins that ship with the toolkit."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name = data.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str):
            return data
        plugin = find_plugin(name, cls.table(), f"{cls.section}.name")
        own = {key: value for key, value in data.items() if key in cls.model_fields}
        given = {key: value for key, value in data.items() if key not in cls.model_fields}
        also = tuple(cls.model_fields)
        params = check_params(function_of(plugin), given, cls.section, owner=name, also=also)
        if name not in cls.table():
            require_call(function_of(plugin), cls.given, f"{cls.section}.name", name)
            return own | params
        try:
            cls.try_out(plugin, params)
        except (UserError, ArithmeticError) as error:
            message = one_line(error)
            blamed = [key for key in given if re.search(rf"\b{key}\b", message)]
            raise KeyProblem(".".join([cls.section, *blamed[:1]]), message) from None
        return own | params

    @classmethod
    def try_out(cls, plugin: Any, params: Mapping[str, Any]) -> None:
        """Calls a shipped plug-in on a toy batch: the ranges of its parameters are known to itself alone."""
        raise NotImplementedError


class AdvantageConfig(PluginSection):
    """From a group's rewards to one number per image."""

    section = "advantage"
    given = ("rewards", "group_size")
    name: str = knob("group_normalized", "the group baseline, or package.module:function")

    @classmethod
    def table(cls) -> Mapping[str, Any]:
        from ..advantages import ADVANTAGES

        return ADVANTAGES

    @classmethod
    def try_out(cls, plugin: Any, params: Mapping[str, Any]) -> None:
        import torch

        plugin(torch.tensor([0.0, 1.0]), 2, **params)

    @property
    def function(self) -> Callable[[Tensor, int], Tensor]:
        """Rewards (B,) and group size to advantages (B,); what a user's own function returns is checked."""
        from ..interfaces import plugin_errors, plugin_values

        found = find_plugin(self.name, self.table(), "advantage.name")

        def advantage(rewards: Tensor, group_size: int) -> Tensor:
            if self.name in self.table():
                return found(rewards, group_size, **self.params)
            who = f"advantage {self.name}"
            with plugin_errors(who):
                values = found(rewards, group_size, **self.params)
            return plugin_values(values, tuple(rewards.shape), who).to(rewards.device)

        return advantage


class CreditConfig(PluginSection):
    """From one number per image to one number per token."""

    section = "credit"
    given = ("fields", "mask", "advantages")
    name: str = knob("uniform", "the credit assigner, or package.module:function")
    refresh: bool = knob(
        False, "take the credit from the policy of each update, not of the rollout"
    )

    @classmethod
    def table(cls) -> Mapping[str, Any]:
        from ..credit.table import CREDIT

        return CREDIT

    @property
    def entry(self) -> CreditEntry:
        """What the method declares; of a user's own function what `as_entry` makes of it, checked at every call."""
        from ..credit.entry import as_entry, checked

        found = as_entry(find_plugin(self.name, self.table(), "credit.name"))
        return found if self.name in self.table() else checked(found, f"credit {self.name}")

    @property
    def has_critic(self) -> bool:
        """Whether it reads what a critic says."""
        return "value_advantage" in self.entry.fields_needed(**self.params)

    @classmethod
    def try_out(cls, plugin: Any, params: Mapping[str, Any]) -> None:
        import torch

        from ..credit.fields import GROUP_FIELDS, ROLLOUT_FIELDS, UPDATE_FIELDS

        ones = torch.ones(1, 2)
        fields = dict.fromkeys(ROLLOUT_FIELDS | GROUP_FIELDS | UPDATE_FIELDS, ones)
        plugin.assign(fields, ones.bool(), torch.ones(1), **params)
