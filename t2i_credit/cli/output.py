"""Standard output and standard error that end no command: whoever reads them may go, and their disk may be full."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class Output:
    """A text stream that is written to nowhere once it cannot be written.

    Attributes:
        lost: why, where that was no reader's wish; None = nothing was lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):  # `| head` is done
            self.lost = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in the buffer goes there, too
        os.close(nowhere)
        if self.lost and self is not sys.stderr:
            print(f"output: cannot be written: {error.strerror}; going on without", file=sys.stderr)


def guarded() -> list[Output]:
    """Puts both streams of this process behind `Output`: closed ones take everything, and a letter that their encoding lacks is
    written as a question mark."""
    found = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
        found.append(Output(stream))
        setattr(sys, name, found[-1])
    return found
