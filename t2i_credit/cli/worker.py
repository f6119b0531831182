"""Finishes one run of a comparison in a process of its own: `python -m t2i_credit.cli.worker CONFIG EVALUATION PARENT`.

CONFIG is the resolved configuration, EVALUATION an evaluation plan as JSON, or null, PARENT the number of the process that
compares: once it is gone, this one stops as after SIGTERM. Trains or resumes, then evaluates what is not evaluated yet;
compares nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..api import launch
from ..errors import UserError
from ..measure.comparison.runs import load_recipe
from ..run_folder.reader import RunReader
from . import console
from .quiet import quiet_libraries

LOOK_EVERY = 1.0  # seconds between two looks at the parent


def end_with(parent: int) -> None:
    """Stops this process once another one is no more its parent: it was killed, and nobody waits for what is done here."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def finish(config_file: Path, evaluation: dict[str, Any] | None) -> None:
    """Brings the run to its last step and evaluates it on every split.

    Args:
        config_file: the resolved configuration.
        evaluation: the fields of the evaluation plan; None = nothing is evaluated.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    kind, config = load_recipe(str(config_file))
    path = launch.run_path(config)
    begun = path.exists()
    if not (begun and RunReader(path, strict=False).status(strict=False).state == "finished"):
        with console.training(config) as progress:
            kind.train(config, resume=begun, report=progress.report, warn=progress.warn)
    if evaluation is None:
        return
    plan = kind.plan(config, **evaluation)
    for split in plan.splits:
        if plan.found(path, split) is None:
            plan.evaluate(path, split)


def main(arguments: list[str]) -> int:
    """Exit code 2 and one line for a user's error; a line where it was stopped, too."""
    quiet_libraries()
    end_with(int(arguments[2]))
    try:
        finish(Path(arguments[0]), json.loads(arguments[1]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "stopped", file=sys.stderr)
        return int(getattr(stopped, "code", 130))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
