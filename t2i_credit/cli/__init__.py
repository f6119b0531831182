"""The command line: verbs over api, measure and text. Computes nothing; heavy imports happen inside the commands."""

import sys
from typing import Any


def main() -> Any:
    """Entry point; see `commands.main`. Whoever stops a command while it is being imported or built gets one line, too; a command
    whose output was lost goes on to its end, with exit code 1."""
    from .output import guarded

    streams = guarded()
    try:
        from .commands import main as run

        run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if not end.code:
            _require_written(streams)
        raise


def _require_written(streams: list[Any]) -> None:
    """Ends with exit code 1 where something was lost."""
    for stream in streams:
        stream.flush()
    if any(stream.lost for stream in streams):
        sys.exit(1)


__all__ = ["main"]
