"""Where the commands meet, and how they end: a user's error is one line and exit code 2. Registers no command itself."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

# the order in which --help lists the commands
from . import runs, measure, make  # noqa: F401  # isort: skip
from ..errors import UserError, one_line, ran_out
from .app import app
from .quiet import VERBOSE_VARIABLE, broken_torch, quiet_libraries

# seconds that the first of several processes has to say what is wrong; its end ends the others
GRACE = 10.0
OUT_OF_MEMORY = (
    "out of memory: take a smaller model, or fewer images at once (sample: --count; evaluate: --protocol batch_size=8; "
    "bench: rollout.group_size=2 train.micro_batch_size=1)"
)


def main() -> Any:
    """Entry point: a user's error, or too little memory, is one line and exit code 2; of several processes one says it.

    Modules of the user's own, as in `credit.name: my_credit:surprise`, may lie in the folder that the command is started in.
    """
    with suppress(OSError):  # the folder is gone
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)  # last, so that no file there stands in for an installed package
    if "--verbose" in sys.argv:  # of the commands, too: wherever it stands
        sys.argv[:] = [word for word in sys.argv if word != "--verbose"]
        os.environ[VERBOSE_VARIABLE] = "1"
    quiet_libraries()
    try:
        return app(standalone_mode=True)
    except UserError as error:
        if os.environ.get(VERBOSE_VARIABLE) and error.__cause__:
            traceback.print_exception(error.__cause__)
        _end(broken_torch(error) or str(error))
    except OSError as error:  # of a name that no file can have, or of a file that changes meanwhile
        if not error.filename or os.environ.get(VERBOSE_VARIABLE):
            raise
        _end(f"{one_line(error.filename):.200}: {error.strerror}")
    except Exception as error:
        if line := broken_torch(error):
            _end(line)
        if ran_out(error):
            _end(OUT_OF_MEMORY)
        raise
    except SystemExit as end:
        cause = end.__context__ and end.__context__.__cause__
        if not isinstance(cause, KeyboardInterrupt):  # which typer makes exit code 130 of
            raise
        if os.environ.get("RANK", "0") == "0":
            print(str(cause) or "stopped", file=sys.stderr)
        sys.exit(getattr(cause, "code", 130))


def _end(line: str) -> None:
    """Says what is wrong, and ends with exit code 2."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(GRACE)
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
