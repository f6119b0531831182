"""The YAML of configurations, in and out: a subset without surprises, every refusal one line. Knows no keys."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from .config_messages import COMMAND_LINE, one_line, plain, show
from .errors import ConfigError


def parse_yaml(content: bytes, where: str) -> Any:
    """The value that a YAML text holds; `where` opens the message of every ConfigError."""
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: is not a text file (UTF-8)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark and not where.startswith(COMMAND_LINE) else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}: {line}{one_line(problem)}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{where}: holds a character that no text has ({error.reason})") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply") from None
    except ValueError:  # 0x_, or more digits than Python reads
        raise ConfigError(f"{where}: holds a malformed number") from None


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


def write_yaml(tree: dict[str, Any]) -> str:
    """YAML, in the order of the keys, that `parse_yaml` reads back as the same tree."""
    options = {"sort_keys": False, "allow_unicode": True, "width": 100}
    return str(yaml.dump(tree, Dumper=_Dumper, **options))


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, less what surprises: keys given twice, aliases, tags; `no` and dates stay texts."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(None, None, "& and * are not supported", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(None, None, "tags (!) are not supported", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in ("<<", "="):
                    problem = f"key {key.value} is not supported"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    problem = f"key {plain(key.value)} is given twice"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                seen.add(str(key.value))
        return node


_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] != "timestamp"
        and (tag.rpartition(":")[2] != "bool" or letter in "tTfF")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Escapes the line ends of Unicode, which PyYAML would write as they are and read back as spaces."""

    def represent_text(self, text: str) -> yaml.Node:
        style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
