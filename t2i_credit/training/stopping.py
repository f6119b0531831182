"""A run that is asked to end: SIGTERM and Ctrl-C become a checkpoint of the last finished step, and a line that says where
the run goes on. Writes no checkpoint itself.

A step is given up as long as no update of it is made: then the weights are still those of the last finished step.
Otherwise it is finished first. Several processes end together, after a step that all of them finished.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..run_folder.layout import numbered_folders
from .processes import rank

GRACE = 10.0  # seconds from the signal to the end, or to a word why not
# what a second signal does: it ends the process, Ctrl-C with the files closed
_AT_ONCE: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class Stopped(KeyboardInterrupt):
    """A run was asked to end and has ended; the message says where --resume goes on.

    Attributes:
        code: what the process should end with.
    """

    def __init__(self, line: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(line)
        self.code = 128 + number


class Stop:
    """What was asked of a run, and how far it is.

    Args:
        path: the run folder.

    Attributes:
        step: the last finished one.
        busy: whether an update of the next step is made already.
        asked: the number of the signal, or None.
    """

    def __init__(self, path: Path = Path()) -> None:
        self.path = path
        self.step, self.busy = 0, False
        self.asked: int | None = None
        self._accelerator: Any = None
        self._before: dict[int, Any] = {}  # what took the signals
        self._saving = self._together = False
        self._why = ""

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Takes signals until the end; one that ends what runs inside is raised as `Stopped`, with the line.

        Outside of the main thread signals are somebody else's.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heed) for number in _AT_ONCE}
        try:
            yield
        except KeyboardInterrupt as error:
            raise Stopped(self._line(), self.asked or signal.SIGINT) from error
        finally:
            if signal.SIGALRM in self._before:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, take in self._before.items():
                signal.signal(number, take)

    @contextmanager
    def saved_by(
        self, save: Callable[[int], None], accelerator: Any, *, together: bool
    ) -> Iterator[None]:
        """Saves the last finished step where a signal ends what runs inside.

        Args:
            save: writes the checkpoint of a step; called in every process.
            accelerator: which processes there are.
            together: whether it takes all of them.
        """
        self._accelerator = accelerator
        try:
            yield
        except Stopped:
            self._save(save, together=together)
            raise
        except RuntimeError as error:  # another process has left
            if self.asked is None or self._processes == 1:
                raise
            self._save(save, together=together)
            raise Stopped from error

    def updating(self, *_: Any) -> None:
        """An update is about to change the weights."""
        self.busy = True

    def finished(self, step: int) -> None:
        """The step is whole; raises `Stopped` in every process if one of them was asked to end."""
        self.step, self.busy = step, False
        if self._processes > 1:
            if self.asked is not None:
                self._accelerator.set_trigger()
            self._together = self._accelerator.check_trigger()
            if self._together:
                self.asked = self.asked or signal.SIGTERM
        if self.asked is not None and (self._processes == 1 or self._together):
            raise Stopped

    @property
    def _processes(self) -> int:
        return 1 if self._accelerator is None else int(self._accelerator.num_processes)

    def _heed(self, number: int, frame: Any) -> None:
        for other, take in _AT_ONCE.items():
            signal.signal(other, take)
        self.asked = number
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._late)
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        if self._processes == 1 and not self.busy:
            raise Stopped
        self._say(f"ends after step {self.step + 1}")

    def _late(self, number: int, frame: Any) -> None:
        if self._saving:
            self._say(f"the checkpoint of step {self.step} is not written yet")
        else:
            raise Stopped

    def _save(self, save: Callable[[int], None], *, together: bool) -> None:
        """Writes the last finished step, unless it is there or cannot be had."""
        if not self._together and self.step <= self._newest():
            return
        if self.busy:
            why = f"step {self.step + 1} was amid its updates"
        elif together and self._processes > 1 and not self._together:
            why = f"step {self.step + 1} took longer, and one process alone cannot write it"
        else:
            self._saving = True
            self._say(f"writes a checkpoint of step {self.step}")
            save(self.step)
            return
        self._why = f"no checkpoint of step {self.step} after {GRACE:g} s: {why}; "

    def _newest(self) -> int:
        """The step of the newest checkpoint, 0 = none."""
        return max(numbered_folders(self.path / "checkpoints"), default=0)

    def _say(self, what: str) -> None:
        """A line for people, which a second signal leaves as the last one."""
        if rank() == 0:
            name = signal.Signals(self.asked or signal.SIGTERM).name
            line = f"{name}: {what}; a second signal ends at once, then {self._goes_on()}"
            os.write(2, f"{line}\n".encode())  # not print: a signal may come amid one

    def _line(self) -> str:
        by = f" by {signal.Signals(self.asked).name}" if self.asked else ""
        return f"stopped{by}; {self._why}{self._goes_on()}"

    def _goes_on(self) -> str:
        if not self.path.exists():
            return "nothing was written"
        if newest := self._newest():
            return f"--resume goes on after step {newest}, the newest checkpoint"
        return "there is no checkpoint: --resume begins anew"
