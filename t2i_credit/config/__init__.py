"""Typed configuration: YAML and key=value overrides become one frozen `Config`. Loads nothing heavy."""

from .describe import KeyRow, describe
from .files import list_recipes
from .plugins import check_params, find_plugin
from .schema import Config, load_config, parse_config, to_yaml

__all__ = [
    "Config",
    "KeyRow",
    "check_params",
    "describe",
    "find_plugin",
    "list_recipes",
    "load_config",
    "parse_config",
    "to_yaml",
]
