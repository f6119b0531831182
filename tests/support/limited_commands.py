"""Commands in a process with little memory, one after the other, so that torch is imported once. Holds no test.

As a script it is that process: a list of words a line comes in, an `Ended` without its limit goes out.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 1 << 30  # bytes above those of the imported libraries
LARGEST = 1 << 28  # bytes of a file that is written
START = 240.0  # seconds that the imports may take on a busy machine


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; None = it was stopped at the limit of time, or the process died.
        out, err: what it printed; a traceback stands in `err`.
        seconds: how long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


class LimitedCommands:
    """`with LimitedCommands(folder) as run: run("heatmap", "runs/run")`; starts a new process after one that died.

    Args:
        folder: the working folder, and where output is kept for a moment.
        seconds: that a command may take.
    """

    def __init__(self, folder: Path, seconds: float = 60.0) -> None:
        self.folder, self.seconds = folder, seconds
        self.process: Any = None

    def __enter__(self) -> LimitedCommands:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, *words: str) -> Ended:
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        began = time.monotonic()
        line = self._line(self.seconds)
        if line:
            return Ended(**json.loads(line))
        seconds = time.monotonic() - began
        self._stop()
        return Ended(None, *self._printed(), seconds)

    def _start(self) -> None:
        places = filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
        files = [(self.folder / name).open("wb") for name in ("out", "err")]
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        )
        for file in files:
            file.close()
        if self._line(START) != b"ready\n":
            self._stop()
            raise RuntimeError(f"the process did not start: {self._printed()}")

    def _line(self, seconds: float) -> bytes:
        """The next line of the process; b"" if it dies or takes longer."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(seconds) else b""

    def _printed(self) -> list[str]:
        return [(self.folder / name).read_text(errors="replace") for name in ("out", "err")]

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _serve(folder: Path) -> None:
    """Runs the commands that come in."""
    import resource

    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
    from t2i_credit.cli.quiet import quiet_libraries

    quiet_libraries()
    import torch

    import t2i_credit.api
    import t2i_credit.measure.evaluation.command
    import t2i_credit.models.janus  # noqa: F401
    from t2i_credit.cli.commands import main

    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    replies.write(b"ready\n")
    for line in sys.stdin:
        for descriptor in (1, 2):
            os.ftruncate(descriptor, 0)
        sys.argv = ["t2i-credit", *json.loads(line)]
        began, code = time.monotonic(), 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        seconds = time.monotonic() - began
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        out, err = ((folder / name).read_text(errors="replace") for name in ("out", "err"))
        answer = {"code": code, "out": out, "err": err, "seconds": seconds}
        replies.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
