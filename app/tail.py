"""Reads metrics.jsonl on from where it was read last, so that a tick of the clock reads a line and not the whole run."""

from __future__ import annotations

import threading
from sys import intern
from typing import Any

from ..run_folder.reader import RunReader

MOST_BYTES = 8 << 20  # of lines that are parsed at a time: 10,000 of a usual run
MOST_LINES = 20_000  # that are kept; a curve is drawn from 400 of them
LONGEST = 1000  # letters of a text
MOST_NAMES = 1000  # of metrics; a run has some dozens


class MetricsTail:
    """The metrics of one run, as far as they were read; of a very long one some of them. Safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = 0  # its inode; a run that was taken up again has another one
        self._read = 0  # bytes
        self._lines: list[dict[str, Any]] = []
        self._names: set[str] = set()

    def lines(self, reader: RunReader) -> list[dict[str, Any]]:
        """`reader.metrics(strict=False)`, thinned where they are many; the dictionaries are kept and must not be changed.

        Raises:
            RunError: the file cannot be read.
        """
        with self._lock:
            self._start_again_if_replaced(reader)
            new, self._read = reader.metrics_from(
                self._read, strict=False, most=MOST_BYTES, keep=self._known
            )
            self._lines += new
            while len(self._lines) > MOST_LINES:  # every other one goes, and the newest stays
                self._lines = [*self._lines[:-1:2], self._lines[-1]]
            return list(self._lines)

    def _known(self, line: dict[str, Any]) -> dict[str, Any]:
        """The metrics of a line, up to `MOST_NAMES` of a run."""
        found = {}
        for name, value in line.items():
            if isinstance(value, list | dict) or (isinstance(value, str) and len(value) > LONGEST):
                continue  # no metric
            if name in self._names or len(self._names) < MOST_NAMES:
                self._names.add(name)
                found[intern(name)] = value
        return found

    def _start_again_if_replaced(self, reader: RunReader) -> None:
        try:
            found = (reader.path / "metrics.jsonl").stat()
            file, size = found.st_ino, found.st_size
        except OSError:
            file, size = 0, 0
        if file != self._file or size < self._read:
            self._file, self._read, self._lines = file, 0, []
            self._names = set()
