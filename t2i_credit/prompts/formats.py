"""The formats of prompt files, each to one record a prompt: JSON lines, a JSON list, lines of text, tables. Checks no record
but for which of its keys holds the prompt.

    .txt    one prompt a line; what stands behind a tab is left out, quotes around the whole prompt too
    .csv    a header, and a column of prompts, perhaps one called negative; quotes as RFC 4180 has them
    .tsv    the same with tabs; quotes count around a whole cell alone, for many such files hold theirs as they are
    .json   a list of texts, or of objects
    .jsonl  an object a line; a file of any other name too, and one that begins with "[" is a list
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import PromptError

SUFFIXES = (".jsonl", ".json", ".txt", ".csv", ".tsv")
PROMPT_KEYS = ("prompt", "prompts", "caption", "text")  # in any case
CHOOSE = "--prompt-column of a command, prompts.column of a recipe"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Row(NamedTuple):
    """One prompt of a file.

    Attributes:
        where: file and line, for messages.
        key: of the record, whose value is the prompt.
        record: what the file says of it.
    """

    where: str
    key: str
    record: dict[str, Any]


def read_rows(text: str, suffix: str, name: str, column: str | None = None) -> list[Row]:
    """The rows of a prompt file; blank lines are skipped.

    Args:
        text: its whole content.
        suffix: of its name, lower case.
        name: the file, for messages.
        column: the column or key that holds the prompts; None = the one that PROMPT_KEYS name.

    Raises:
        PromptError: one line that names file, line and what is allowed.
    """
    begins = text.lstrip()[:1]
    if suffix in (".csv", ".tsv"):
        return list(_table(_cells(text, suffix, name), name, column))
    if suffix == ".txt" and begins != "{":
        if column is not None:
            raise PromptError(f"{name}: has no columns, and {column!r} was asked for ({CHOOSE})")
        lines = enumerate(re.split(r"\r\n?|\n", text), 1)
        return [
            Row(f"{name}:{number}", "prompt", {"prompt": _unquoted(line.split("\t")[0])})
            for number, line in lines
            if line.strip()
        ]
    if begins == "[":
        items = enumerate(_parse(text, name), 1)
        found = [(f"{name}: item {number}", item) for number, item in items]
    else:
        # Only "\n" ends a line: str.splitlines would also cut at a U+2028 inside a JSON text.
        lines = enumerate(text.split("\n"), 1)
        found = [(f"{name}:{n}", _parse(line, f"{name}:{n}")) for n, line in lines if line.strip()]
    return [_row(item, where, column, in_list=begins == "[") for where, item in found]


def read_row(text: str, where: str) -> Row:
    """One JSON object, over as many lines as it likes.

    Raises:
        PromptError: as of a line of a file.
    """
    item = _parse(text, where)
    own = "prompt" if isinstance(item, dict) and "prompt" in item else None  # GenEval's name for it
    return _row(item, where, own, in_list=False)


def _row(item: Any, where: str, column: str | None, *, in_list: bool) -> Row:
    """A JSON value as a row: an object or, in a list, a text."""
    if in_list and isinstance(item, str):
        return Row(where, "prompt", {"prompt": item})
    if not isinstance(item, dict):
        allowed = "a text or an object" if in_list else "a JSON object"
        raise PromptError(f"{where}: must be {allowed} like {{'text': ...}}, got {item!r:.60}")
    keys = _prompt_keys(item, column)
    if not keys:
        wanted = f"{column!r}" if column else ", ".join(PROMPT_KEYS)
        held = ", ".join(map(repr, item)) or "none"
        raise PromptError(
            f"{where}: lacks the prompt, no key is {wanted} (its keys: {held:.200}); name another with {CHOOSE}"
        )
    if any(item[key] != item[keys[0]] for key in keys):
        raise PromptError(f"{where}: {keys[0]!r} and {keys[1]!r} differ; give one of them")
    return Row(where, keys[0], item)


def _prompt_keys(names: Iterable[str], column: str | None) -> list[str]:
    """Those of the names that stand for the prompt."""
    wanted = PROMPT_KEYS if column is None else (column.strip().casefold(),)
    found = [name for name in names if name.strip().casefold() in wanted]
    return [column] if column in found else found


def _table(rows: Iterator[tuple[int, list[str]]], name: str, column: str | None) -> Iterator[Row]:
    """The rows below a header."""
    number, header = next(rows, (1, []))
    columns = ", ".join(map(repr, header)) or "none"
    keys = _prompt_keys(header, column)
    if len(keys) != 1:
        wanted = f"{column!r}" if column else ", ".join(PROMPT_KEYS)
        problem = "several columns are" if keys else "no column is"
        raise PromptError(
            f"{name}:{number}: {problem} {wanted} (its columns: {columns:.200}); name one with {CHOOSE}"
        )
    place = header.index(keys[0])
    names = [name.strip().casefold() for name in header]
    negative = [("negative", names.index("negative"))] if "negative" in names else []
    for number, cells in rows:
        where = f"{name}:{number}"
        if len(cells) != len(header):
            raise PromptError(
                f"{where}: has {len(cells)} cells where the header has {len(header)} ({columns:.200})"
            )
        beside = {name: cells[n] or None for name, n in negative}
        yield Row(where, keys[0], {keys[0]: cells[place], **beside})


def _cells(text: str, suffix: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, cells) of every row that is not blank."""
    if suffix == ".tsv":
        for number, line in enumerate(re.split(r"\r\n?|\n", text), 1):
            if line.strip():
                yield number, [_unquoted(cell) for cell in line.split("\t")]
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                most = csv.field_size_limit()
                raise PromptError(
                    f"{name}:{number}: a cell has more than {most:,} letters, or its quote is never closed"
                ) from None
            raise PromptError(
                f"{name}:{number}: is not a row of comma-separated values ({error}); a cell with a comma, a line end or a "
                'quote stands in quotes, and a quote in it is written twice, ""'
            ) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield number, [cell.strip() for cell in cells]


def _unquoted(cell: str) -> str:
    """A cell without the quotes around it; quotes around a part of it belong to it."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell


def _parse(text: str, where: str) -> Any:
    """A JSON value whose objects have every key once."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            twice = next(key for key in record if sum(key == k for k, _ in pairs) > 1)
            raise PromptError(f"{where}: key {twice!r} is given twice")
        return record

    def constant(value: str) -> None:
        raise PromptError(f"{where}: {value} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except PromptError:
        raise
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise PromptError(
            f"{where}: is not JSON ({error.msg}, {line}column {error.colno}); one object a line is, such as "
            '{"text": "a red circle"}, or a list of texts in a .json file; a .txt file has one prompt a line'
        ) from None
    except RecursionError:
        raise PromptError(f"{where}: is nested too deeply") from None
    except ValueError:  # Python's own limit on the digits of an integer
        raise PromptError(f"{where}: holds a number with too many digits") from None
