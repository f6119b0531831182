"""The command line: verbs over api, measure and text. Computes nothing; heavy imports happen inside the commands."""

import sys
from typing import Any


def main() -> Any:
    """Entry point; see `commands.main`. Whoever stops a command while it is being imported or built gets one line, too."""
    try:
        from .commands import main as run

        return run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


__all__ = ["main"]
