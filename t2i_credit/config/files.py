"""Where a configuration comes from: files, shipped recipes, their bases, and key=value overrides, merged into one tree.

It validates no value; schema.py makes a `Config` of the tree.
"""

from __future__ import annotations

import copy
import importlib.resources
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, UserError
from ..files import read_given
from ..prompts.written import expanded
from ..yaml_text import parse_yaml
from .messages import COMMAND_LINE, did_you_mean, plain, show
from .plugins import AdvantageConfig, CreditConfig, PluginSection

MOST_RECIPE = 1 << 20  # bytes
TEXT_WORLDS = ("arithmetic",)  # folders of recipes for text
_PLUGINS: dict[str, type[PluginSection]] = {"advantage": AdvantageConfig, "credit": CreditConfig}


def read_tree(
    name: str, overrides: Sequence[str]
) -> tuple[dict[str, Any], str, Callable[[str], str]]:
    """A file or a shipped recipe with its bases, and the overrides on top; raises ConfigError.

    Returns:
        tree: section -> key -> value, as YAML gives them, not yet validated.
        where: the file or recipe that was named.
        origin: dotted key -> which file, or the command line, set it.
    """
    layers = _read_with_bases(name)
    where, recipe = layers[-1].where, layers[-1].recipe
    origins: dict[str, str] = {}
    tree: dict[str, Any] = {"reward": {"geneval": {}}}
    for layer in layers:
        for section, value in layer.tree.items():
            _put(tree, (section,), value, layer.where, origins)
    parsed = [_parse_override(text) for text in overrides]
    # Whole sections first, then names, so that the order on the command line does not matter.
    for path, value in sorted(parsed, key=lambda item: (len(item[0]), item[0][-1] != "name")):
        _put(tree, path, value, COMMAND_LINE, origins)
    train = tree.setdefault("train", {})
    if isinstance(train, dict):
        own_name = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-._")[:100]
        train.setdefault("name", own_name or "run")
    return tree, where, partial(_origin, origins, where)


def _origin(origins: Mapping[str, str], default: str, key: str) -> str:
    """Where the key, the nearest mapping around it, or else a key inside it was set last."""
    around = [known for known in origins if f"{key}.".startswith(f"{known}.")]
    inside = [known for known in origins if known.startswith(f"{key}.")]
    found = max(around, key=len, default=inside[-1] if inside else None)
    return origins[found] if found else default


def list_recipes(*, text: bool = False) -> list[str]:
    """The names of the shipped recipes for images, such as `shapes/gcpo`, or of those for text, sorted."""
    return sorted(name for name in _recipes() if (name.split("/")[0] in TEXT_WORLDS) == text)


def recipe_summary(name: str) -> str:
    """The first sentence of the comment that a shipped recipe begins with; raises ConfigError if there is no such recipe."""
    recipes = _recipes()
    if name not in recipes:
        raise ConfigError(f"{plain(name)}: no such recipe{did_you_mean(name, recipes)}")
    lines = recipes[name].read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(re.compile(r"# \S").match, lines)
    return re.split(r"(?<=[^D][^r]\.) ", " ".join(line[2:] for line in comment))[0]


def _recipes() -> dict[str, Traversable]:
    try:
        root: Traversable = importlib.resources.files("t2i_credit.configs")
    except ModuleNotFoundError:
        # A source tree that is on the path without being installed keeps the recipes beside the package.
        root = Path(__file__).resolve().parents[2] / "configs"
        if not root.is_dir():
            raise ConfigError(
                "the shipped recipes are missing: the package t2i-credit is not installed "
                "(pip install t2i-credit, or make install in a source tree)"
            ) from None

    def walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from walk(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml"):
                yield f"{prefix}{entry.name.removesuffix('.yaml')}", entry

    return dict(walk(root, ""))


class _Layer(NamedTuple):
    """A file or a shipped recipe; `folder` is where its base may lie, None for a recipe."""

    identity: str
    where: str
    recipe: str
    folder: str | None
    tree: dict[str, Any]


def _read_with_bases(name: str) -> list[_Layer]:
    """The named configuration and what it is based on, the last base first."""
    layers: list[_Layer] = []
    front = ""
    folder: str | None = ""
    while True:
        try:
            name = expanded(name)
        except UserError as error:
            raise ConfigError(f"{front}{error}") from None
        layer = _open(name, front, folder)
        if layer.identity in [known.identity for known in layers]:
            raise ConfigError(f"{front}{plain(name)} leads back to itself; cycles are refused")
        layers.insert(0, layer)
        base = layer.tree.pop("base", None)
        if base is None:
            return layers
        front, folder = f"{layer.where}: base: ", layer.folder
        if not isinstance(base, str) or not base:
            raise ConfigError(f"{front}must be the name of a recipe, got {show(base)}")
        name = base


def _open(name: str, front: str, folder: str | None) -> _Layer:
    """A file or a shipped recipe; `front` opens every message about its name."""
    path = os.path.join(folder or "", name)
    recipes: dict[str, Traversable] = {}
    try:
        if folder is not None and os.path.isfile(path):
            stem = os.path.splitext(os.path.basename(path))[0]
            tree = _sections(read_given(path, MOST_RECIPE), plain(path))
            return _Layer(os.path.realpath(path), plain(path), stem, os.path.dirname(path), tree)
        recipes = _recipes()
        if name in recipes:
            where = f"recipe {name}"
            return _Layer(where, where, name, None, _sections(recipes[name].read_bytes(), where))
    except OSError as error:
        raise ConfigError(f"{front}{plain(path)}: cannot be read ({error.strerror})") from None
    shown = plain(name)
    if os.path.isdir(path):
        raise ConfigError(f"{front}{shown}: is a folder, not a YAML file")
    if name.endswith((".yaml", ".yml")):
        raise ConfigError(f"{front}{shown}: no such file")
    hint, listed = did_you_mean(name, recipes), ", ".join(sorted(recipes)) or "none"
    raise ConfigError(f"{front}{shown}: no such file or recipe{hint} (recipes: {listed})")


def _sections(content: bytes, where: str) -> dict[str, Any]:
    """The tree that a file holds, its keys and values not yet validated."""
    tree = parse_yaml(content, where)
    if isinstance(tree, dict) and {"model_type", "preset"} & tree.keys():
        raise ConfigError(
            f"{where}: describes a model, and is no recipe; a recipe names it: t2i-credit train RECIPE model.name={where}"
        )
    if tree is None:
        raise ConfigError(f"{where}: is empty; write at least one section (model: ...)")
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: must hold sections (model: ...), got {show(tree)}")
    check_tree(tree, where)
    return tree


def key_value(text: str) -> tuple[str, str | None]:
    """`key=value` as both are written; without a "=" there is no value."""
    key, equals, value = text.partition("=")
    return key, value if equals else None


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """`a.b=value` to its path and its YAML value."""
    key, raw = key_value(text)
    if raw is None:
        raise ConfigError(f"{COMMAND_LINE}: {show(text)}: write key=value, such as optim.lr=3e-4")
    key = key.strip()
    # The colon of package.module:function ends the dots that belong to a reward's name.
    module, colon, rest = key.partition(":")
    if colon and module.startswith("reward."):
        path = ["reward", module.removeprefix("reward.") + colon + rest.split(".")[0]]
        path += rest.split(".")[1:]
    else:
        path = key.split(".")
    if not all(path):
        raise ConfigError(f"{COMMAND_LINE}: {show(text)}: {show(key)} is no key")
    if path[0] == "base":
        raise ConfigError(f"{COMMAND_LINE}: base: only a file names its base; name another recipe")
    where = f"{COMMAND_LINE}: {show(text)}"
    value = parse_yaml(raw.encode("utf-8", "replace"), where, lines=False)
    check_tree(value, COMMAND_LINE, tuple(plain(part) for part in path))
    return tuple(path), value


def _put(
    tree: dict[str, Any], path: tuple[str, ...], value: Any, where: str, origins: dict[str, str]
) -> None:
    """Sets one value, or merges one section.

    Raises:
        ConfigError: the command line gives a key a value, and keys of its own.
    """
    section, *keys = path
    if where == COMMAND_LINE:
        _require_keys(tree, path)
    if not keys:
        if value is None:
            return
        if section != "reward" and isinstance(value, dict):
            for key in sorted(value, key=lambda key: key != "name"):
                _put(tree, (section, key), value[key], where, origins)
            return
    elif keys == ["name"] and section in _PLUGINS:
        current = tree.get(section)
        default = _PLUGINS[section].model_fields["name"].default
        if not isinstance(current, dict) or current.get("name", default) != value:
            tree[section] = {}
    place = tree
    for key in path[:-1]:
        if not isinstance(place.get(key), dict):
            place[key] = {}
        place = place[key]
    place[path[-1]] = copy.deepcopy(value)
    origins[".".join(map(plain, path))] = where


def _require_keys(tree: Mapping[str, Any], path: Sequence[str]) -> None:
    """Raises ConfigError if what holds the last of these keys is a value: then it would be lost without a word."""
    place: Any = tree
    for depth, key in enumerate(path[:-1], 1):
        place = place.get(key)
        if place is None:
            return
        if not isinstance(place, dict):
            around, at = (".".join(map(plain, part)) for part in (path[:depth], path))
            problem = f"{around} is {show(place)}, which has no keys; give one of the two"
            raise ConfigError(f"{COMMAND_LINE}: {at}: {problem}")


def check_tree(tree: Any, where: str, path: tuple[str, ...] = ()) -> None:
    """Keys are texts, numbers are finite, texts can be written as UTF-8."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not isinstance(key, str):
                at = "".join(f"{part}." for part in path)
                raise ConfigError(f"{where}: {at}{show(key)}: a key must be a text, not a value")
            check_tree(key, where, path)
            check_tree(value, where, (*path, plain(key)))
    elif isinstance(tree, list):
        for value in tree:
            check_tree(value, where, path)
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise ConfigError(f"{where}: {'.'.join(path)}: {tree} is not allowed; must be finite")
    elif isinstance(tree, str) and re.search("[\0\ud800-\udfff]", tree):
        shown = f"{'.'.join(path)}: value {show(tree)}"
        raise ConfigError(f"{where}: {shown} is not allowed; it holds a character that no text has")


def dotted(tree: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    """A configuration's nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        found |= dotted(value, f"{front}{key}.") if nested else {f"{front}{key}": value}
    return found
