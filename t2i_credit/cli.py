"""The command line: verbs over api.py. Computes nothing; heavy imports happen inside the commands (cli_*.py)."""

from __future__ import annotations

import sys
from typing import Any

# the order in which --help lists the commands
from . import cli_runs, cli_measure, cli_make  # isort: skip
from .cli_app import app
from .errors import UserError

__all__ = ["app", "cli_make", "cli_measure", "cli_runs", "main"]


def main() -> Any:
    """Entry point: a user's error is one line and exit code 2."""
    try:
        return app(standalone_mode=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("stopped; a training run continues with --resume", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
