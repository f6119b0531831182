"""The command line: verbs over api.py. Computes nothing; heavy imports happen inside the commands (cli_*.py)."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

# the order in which --help lists the commands
from . import cli_runs, cli_measure, cli_make  # isort: skip
from .cli_app import app
from .errors import UserError

# seconds that the first of several processes has to say what is wrong; its end ends the others
GRACE = 10.0

__all__ = ["app", "cli_make", "cli_measure", "cli_runs", "main"]


def main() -> Any:
    """Entry point: a user's error is one line and exit code 2; of several processes one says it."""
    try:
        return app(standalone_mode=True)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(GRACE)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("stopped; a training run continues with --resume", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
