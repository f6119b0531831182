"""Finishes one run of a comparison in a process of its own: `python -m t2i_credit.compare_worker CONFIG EVALUATION`.

CONFIG is the resolved configuration, EVALUATION an evaluation plan as JSON. Trains or resumes, then evaluates what is
not evaluated yet; compares nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import api, console, judging, launch
from .compare_runs import SPLITS, EvaluationPlan
from .config import load_config
from .errors import UserError
from .run_reader import RunReader


def finish(config_file: Path, plan: EvaluationPlan) -> None:
    """Brings the run to its last step and evaluates it on both splits.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    config = load_config(config_file)
    path = launch.run_path(config)
    begun = path.exists()
    if not (begun and RunReader(path).status().state == "finished"):
        parts = api.prepare(config)
        with console.training(config) as progress:
            api.run_training(parts, resume=begun, report=progress.report, warn=progress.warn)
    for split in SPLITS:
        if plan.found(path, split) is None:
            judging.evaluate_model(
                str(path),
                split=split,
                per_task=plan.prompts,
                images_per_prompt=plan.images,
                cfg_scale=plan.cfg_scale,
                seed=plan.seed,
            )


def main(arguments: list[str]) -> int:
    """Exit code 2 and one line for a user's error."""
    try:
        finish(Path(arguments[0]), EvaluationPlan(**json.loads(arguments[1])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
