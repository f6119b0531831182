"""YAML as the core schema of version 1.2 reads it, less what surprises: the one place where it is read and written.

Whole numbers are decimal (010 is 10), 0o10 or 0x10; 1e-3 is a number; 12:30, 1_000, dates, yes, no, on and off are texts.
Keys given twice, aliases and tags are refused. Checks no key and no value.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from .errors import ConfigError, one_line

_TAG = "tag:yaml.org,2002:"
# (tag, pattern, first letters) of the core schema, YAML 1.2.2, section 10.3.2
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


def parse_yaml(content: bytes, where: str, *, lines: bool = True) -> Any:
    """The value that a YAML text holds.

    Args:
        content: UTF-8, with or without a byte order mark.
        where: opens the message of every error.
        lines: whether a message names the line, too.

    Raises:
        ConfigError: one line.
    """
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: is not a text file (UTF-8)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark and lines else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}: {line}{one_line(problem)}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{where}: holds a character that no text has ({error.reason})") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply") from None
    except ValueError:  # Python's own limit on the digits of an integer
        raise ConfigError(f"{where}: holds a number with too many digits") from None


def write_yaml(value: Any, *, flow: bool = False) -> str:
    """YAML, in the order of the keys, that `parse_yaml` reads back as the same value; so do readers of YAML 1.1.

    Args:
        value: of plain types.
        flow: on one line, as on a command line.
    """
    width = 1000 if flow else 100
    options = {"sort_keys": False, "allow_unicode": True, "width": width}
    text = str(yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, **options))
    return text.removesuffix("...\n").strip() if flow else text


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

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
                    problem = f"key {one_line(key.value)} is given twice"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                seen.add(str(key.value))
        return node

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML reads as no text; escapes the line ends of Unicode, which PyYAML would write as
    they are and read back as spaces."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
        return self.represent_scalar(f"{_TAG}str", text, style=style)


for _name, _pattern, _letters in _CORE:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _letters)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_whole)
_Dumper.add_representer(str, _Dumper.represent_text)
