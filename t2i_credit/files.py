"""Files that somebody else may have made: a pipe, one without end, JSON nested without end. Knows no layout."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

MOST_IN_MEMORY = 96 << 20  # bytes of the values in a JSON text: three letters can make a hundred
MOST_GIVEN = 256 << 20  # bytes of a file of prompts, settings or results


@contextmanager
def regular_file(path: str | os.PathLike[str], most: int | None = None) -> Iterator[BinaryIO]:
    """A file to read, which does not block: no pipe, no device, and not larger than `most` bytes.

    Raises:
        OSError: there is none, or it is something else, or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if most is not None and about.st_size > most:
            problem = f"it has {about.st_size:,} bytes, and at most {most:,} are read"
            raise OSError(errno.EFBIG, problem)
        yield file


def read_given(path: str | os.PathLike[str], most: int = MOST_GIVEN) -> bytes:
    """The bytes of a `regular_file`."""
    with regular_file(path, most) as file:
        return file.read(most)


def parse_json(content: bytes | str) -> Any:
    """A JSON value. Raises ValueError for what is none, or is nested too deeply to be read."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_small_json(content: bytes) -> Any:
    """`parse_json` of a text whose values take at most `MOST_IN_MEMORY`, as far as its marks say; ValueError for more."""
    require_small(content)
    return parse_json(content)


def require_small(content: bytes) -> None:
    """Refuses a JSON text whose values would take more than `MOST_IN_MEMORY`. Raises ValueError."""
    pairs, values = content.count(b":"), content.count(b",")
    size = 130 * pairs + 40 * max(0, values - pairs)
    size += 100 * content.count(b"{") + 72 * content.count(b"[")
    if size > MOST_IN_MEMORY:
        problem = f"its values would take {size >> 20:,} MiB of memory"
        raise ValueError(f"{problem}, and at most {MOST_IN_MEMORY >> 20} are read")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON value in a file.

    Raises:
        OSError: as of `regular_file`.
        ValueError: as of `parse_json`.
    """
    return parse_json(read_given(path))
