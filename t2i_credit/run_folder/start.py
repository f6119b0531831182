"""How a run folder begins: made anew, or taken up at its latest checkpoint. Checks first, and changes nothing when it refuses.

status.json and environment.json hold nothing that a run needs to go on: one that is missing or damaged is made anew.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from .atomic import cannot, json_bytes, write_atomic, write_folder_atomic, write_json
from .layout import FORMAT, numbered_folders, step_name
from .reader import RunReader

DAMAGED = "metrics.damaged.jsonl"  # lines of metrics.jsonl that cannot be read, as they were


@dataclass(frozen=True)
class Start:
    """What a run folder begins with.

    Attributes:
        config: the resolved configuration, YAML.
        environment: versions, device, seed, commit.
        total: steps of the whole run.
        resume: takes up an old run.
    """

    config: str
    environment: Mapping[str, Any]
    total: int
    resume: bool

    def check(self, path: Path) -> int:
        """The step of the checkpoint that the run goes on from, 0 = none.

        Raises:
            RunError: it cannot begin there; see `check_new` and `check_resumable`.
        """
        if self.resume:
            return check_resumable(path, self.total)
        check_new(path)
        return 0

    def write(self, path: Path) -> dict[str, Any]:
        """Makes the folder, or cuts it back to the checkpoint; returns what status.json holds.

        Raises:
            RunError: see `check`; or the disk refuses.
        """
        step = self.check(path)
        status = _status(step, self.total)
        if not self.resume:
            with write_folder_atomic(path, replace=False) as folder:
                write_atomic(folder / "config.yaml", self.config.encode())
                write_json(folder / "environment.json", {**self.environment, "format": FORMAT})
                write_json(folder / "status.json", status)
            return status
        _cut_back(path, step)
        try:
            old = RunReader(path).environment()
        except RunError:
            old = dict(self.environment)
        known = old.get("resumed")
        again = [*(known if isinstance(known, list) else []), {"step": step, **self.environment}]
        write_json(path / "environment.json", {"format": FORMAT, **old, "resumed": again})
        write_atomic(path / "config.yaml", self.config.encode())
        write_json(path / "status.json", status)
        return status


def check_new(path: Path) -> None:
    """Raises RunError unless a new run folder can be made there: nothing, or an empty folder."""
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
    except OSError as error:
        raise cannot("written", path, error) from error
    if any((path / name).exists() for name in ("environment.json", "config.yaml")):
        raise RunError(
            f"{path}: this run exists: continue it with --resume, or choose another name"
        )
    raise RunError(f"{path}: exists and is not a run folder: choose another name")


def check_resumable(path: Path, total: int) -> int:
    """The step of the latest checkpoint of a run that can go on to step `total`, 0 = none.

    Raises:
        RunError: it is no run, another process is writing it, or it is past that step.
    """
    status = RunReader(path, strict=False).status(strict=False)
    if status.state == "running" and status.here and status.pid != os.getpid():
        raise RunError(f"{path}: process {status.pid} is writing this run: stop it before resuming")
    step = max(numbered_folders(path / "checkpoints"), default=0)
    if step > total:
        raise RunError(
            f"train.steps: {total} is not allowed; {path} is already past that, at its checkpoint of step {step}: "
            f"{step} or more"
        )
    return step


def _cut_back(path: Path, step: int) -> None:
    """Drops what was written after a step, and what a killed process left unfinished."""
    lines, damaged = RunReader(path, strict=False).sorted_metrics()
    if damaged:
        beside = path / DAMAGED
        before = beside.read_bytes() if beside.is_file() else b""
        write_atomic(beside, before + b"".join(line + b"\n" for _, line in damaged))
    kept = [json_bytes(line) + b"\n" for line in lines if line["step"] <= step]
    write_atomic(path / "metrics.jsonl", b"".join(kept))
    try:
        for folder in (path / "steps", path / "heatmaps"):
            for later in numbered_folders(folder):
                if later > step:
                    shutil.rmtree(folder / step_name(later))
        for left in [*path.glob(".*.tmp"), *path.glob("*/.*.tmp")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    except OSError as error:
        raise cannot("cut back", path, error) from error


def _status(step: int, total: int) -> dict[str, Any]:
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    times = dict.fromkeys(("started", "heartbeat"), time.time())
    return {"state": "running", **process, **times, "step": step, "total": total}
