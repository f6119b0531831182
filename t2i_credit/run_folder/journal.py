"""What an evaluation has found so far, kept line by line, so that a killed one goes on where it was. Judges nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import parse_json, read_given
from .atomic import cannot, json_bytes, write_atomic


@dataclass(frozen=True)
class Found:
    """What was found about one prompt: its G records, and how much its images differ (None if unknown)."""

    records: list[dict[str, Any]]
    disagreement: float | None


class Journal:
    """The prompts that are done, from the first one on, in a file that is deleted at the end.

    The first line says which evaluation this is; an older journal that says otherwise is not continued.

    Args:
        path: the file; its folder is made.
        header: whatever decides about the records, as JSON.
        warn: told when an unfinished evaluation is not continued, and why.

    Raises:
        RunError: the disk refuses.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], warn: Callable[[str], None] = print
    ) -> None:
        self.path = path
        title = json.loads(json_bytes(header))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = read_given(path).split(b"\n")[:-1] if path.exists() else []
        except OSError as error:
            raise cannot("read", path, error) from error
        self.found: list[Found] = []
        known = _json(lines[0]) if lines else {}
        if known == title:
            self.found = _complete(lines[1:])
        elif lines:
            warn(f"{path.parent}: starts over, {_changed(known, title)} the unfinished evaluation")
        write_atomic(path, json_bytes(title) + b"\n" + _lines(0, self.found))

    def add(self, found: Sequence[Found]) -> None:
        """Keeps what was found about the next prompts."""
        lines = _lines(len(self.found), found)
        self.found += found
        try:
            with self.path.open("ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot("written", self.path, error) from error

    def finish(self) -> None:
        """The evaluation is complete and saved: the file goes."""
        self.path.unlink(missing_ok=True)


def _lines(first: int, found: Sequence[Found]) -> bytes:
    """One line for each prompt, the first of which is number `first`."""
    rows = ({"prompt": n} | vars(one) for n, one in enumerate(found, first))
    return b"".join(json_bytes(row) + b"\n" for row in rows)


def _complete(lines: Sequence[bytes]) -> list[Found]:
    """The leading lines that are whole and in order: a killed process may have left half of one."""
    found: list[Found] = []
    for line in lines:
        value = _json(line)
        if value.get("prompt") != len(found):
            break
        found.append(Found(value["records"], value["disagreement"]))
    return found


def _json(line: bytes) -> dict[str, Any]:
    """The object of a line; {} if it is damaged."""
    try:
        value = parse_json(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which entry of the header is another now."""
    return next(
        (f"{key} has changed since" for key in now if before.get(key) != now[key]), "unlike"
    )
