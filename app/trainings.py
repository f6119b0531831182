"""The training that was started from the page: a process of its own, one at a time, whose output lies beside its run. Checks no
configuration (see recipes.py) and draws nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import RunError
from ..files import regular_file
from ..heatmap.text import printable
from ..prompts.files import save_prompts
from ..run_folder.atomic import cannot
from .recipes import Plan

CONSOLE_ENDING = ".console.txt"  # beside the run folder: what the training says
LAST_LINES, LAST_BYTES = 12, 8 << 10  # that are shown of it
PATIENCE = 20.0  # seconds that a stopped training has for its checkpoint, before it may be ended
STOPPED = (130, 143)  # exit codes of a run that was asked to end


class Trainings:
    """Starts, stops and watches.

    Args:
        root: the folder of runs.
        without: variables of the app's own that a training is not to have.

    Attributes:
        run: the name of the run that is trained, or was trained last; "" = none yet.
    """

    def __init__(self, root: Path | str, without: Collection[str] = ()) -> None:
        self.root, self.without = Path(root).resolve(), without
        self.run = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: float | None = None  # when it was asked to end
        self._lock = threading.Lock()
        self._written: set[Path] = set()  # files of prompts

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process is not None and self._process.poll() is None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end, and has not yet."""
        return self.running and self._asked is not None

    @property
    def failed(self) -> int | None:
        """The exit code of one that ended otherwise than at its last step or by being stopped."""
        code = self._process.poll() if self._process else None
        return None if code in (None, 0, *STOPPED) else code

    def start(self, plan: Plan) -> None:
        """Starts a training.

        Raises:
            RunError: one goes on already, or a file cannot be written.
        """
        with self._lock:
            if self.running:
                raise RunError(
                    f"{self.run} is still training, and one is trained at a time: stop it first"
                )
            if plan.prompts:
                if plan.source not in self._written and os.path.lexists(plan.source):
                    raise RunError(f"{plan.source}: is there already: choose another name")
                try:
                    self.root.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise cannot("made", self.root, error) from error
                self._written.add(plan.source)
                save_prompts(plan.prompts, plan.source)
            command = [sys.executable, "-m", "t2i_credit.cli", "train", *plan.words]
            kept = {name: text for name, text in os.environ.items() if name not in self.without}
            with self._console(plan.name) as output:
                os.write(output.fileno(), f"$ {plan.command}\n".encode())
                try:
                    # a session of its own: Ctrl-C in the app's terminal is the app's, which passes it on
                    self._process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**kept, "PYTHONUNBUFFERED": "1"},
                        start_new_session=True,
                    )
                except (OSError, ValueError) as error:
                    raise RunError(f"{plan.name}: cannot be started: {error}") from error
            self.run, self._asked = plan.name, None

    def stop(self, name: object) -> None:
        """Asks the training to end with a checkpoint, as Ctrl-C does; one that has not after a while is ended.

        Raises:
            RunError: it was not started here, does not go on, or is ending.
        """
        with self._lock:
            if not self.running or name != self.run:
                raise RunError(f"{name!r:.120} was not started from this page, or has ended")
            assert self._process is not None
            if self._asked is None:
                self._asked = time.monotonic()
                self._process.send_signal(signal.SIGINT)
            elif time.monotonic() - self._asked < PATIENCE:
                raise RunError(f"{self.run} is ending: it writes its checkpoint")
            else:
                self._process.send_signal(signal.SIGTERM)

    def close(self, say: Callable[[str], None]) -> None:
        """Ends the training with a checkpoint, where one goes on, and waits for it; a KeyboardInterrupt ends it at once."""
        if not self.running:
            return
        assert self._process is not None
        say(
            f"{self.run} is still training: it is stopped with a checkpoint; Ctrl-C ends it at once"
        )
        try:
            with suppress(RunError):  # it has just ended, or was asked to
                self.stop(self.run)
            self._process.wait(timeout=2 * PATIENCE)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGINT)  # a second one ends it at once
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=PATIENCE / 4)
            self._process.kill()
        self._process.wait()
        say(f"{self.run}: {(self.last_lines() or ['ended'])[-1]}")

    def last_lines(self) -> list[str]:
        """The end of what the training said, as text that can be shown."""
        try:
            with regular_file(self.root / f"{self.run}{CONSOLE_ENDING}") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LAST_BYTES))
                text = file.read(LAST_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        return [printable(line) for line in text.splitlines() if line.strip()][-LAST_LINES:]

    def _console(self, run: str) -> BinaryIO:
        """The file that a training writes to: a regular one, and no link."""
        path = self.root / f"{run}{CONSOLE_ENDING}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise cannot("written", path, error) from error
        file = os.fdopen(descriptor, "wb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise RunError(f"{path}: is no regular file: choose another name")
        return file
