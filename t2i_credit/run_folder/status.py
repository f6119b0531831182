"""How a run stands: what status.json says, checked, and whether the process behind it still lives. Reads no file of a
run itself (see reader.py)."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

STALE_AFTER = 900.0  # seconds without a heartbeat after which a run counts as killed
_MOST_PID = 2**31  # more is no process number on any system


@dataclass(frozen=True)
class RunStatus:
    """How a run stands. `state`: running, finished, failed, stopped; killed = it says running but
    its process is gone or silent; unreadable = `message` says why. Times in seconds since 1970;
    `here` = it ran on this machine."""

    path: Path
    state: str
    step: int = 0
    total: int = 0
    started: float = 0.0
    heartbeat: float = 0.0
    pid: int = 0
    here: bool = False
    message: str = ""


def run_status(path: Path, known: Mapping[str, Any], stale_after: float) -> RunStatus:
    """The status of a run from the content of its status.json.

    Args:
        path: the run folder.
        known: what status.json holds.
        stale_after: seconds of silence that mean that it was killed.

    Raises:
        KeyError, TypeError: an entry is missing or of the wrong type; says which. Others, of a newer version, are left out.
    """
    here = known["host"] == socket.gethostname()
    entries = {name: value for name, value in known.items() if name in _FITS}
    for name, value in entries.items():
        if not _FITS[name](value):
            raise TypeError(f"{name}: {value!r:.60} is not allowed")
    status = RunStatus(path, here=here, **entries)
    gone = here and not alive(status.pid)
    silent = time.time() - status.heartbeat > stale_after
    if status.state == "running" and (gone or silent):
        return replace(status, state="killed")
    return status


def whole(value: object) -> bool:
    """Whether a value of JSON is a count: a whole number that every float holds exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_time(value: object) -> bool:
    return whole(value) or (isinstance(value, float) and math.isfinite(value))


_FITS = {
    "state": _is_text,
    "step": whole,
    "total": whole,
    "started": _is_time,
    "heartbeat": _is_time,
    "pid": lambda value: whole(value) and value < _MOST_PID,
    "message": _is_text,
}


def alive(pid: int) -> bool:
    if os.name != "posix":  # os.kill(pid, 0) ends the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Linux: a dead child that nobody waited for still has its number
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
