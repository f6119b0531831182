"""The verb `train` for a text recipe. Introduces the trainer for text to the command line; imports it only if it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from .text_config import load_text_config


def train(name: str, overrides: Sequence[str], *, resume: bool, dry_run: bool, app: bool) -> bool:
    """Trains if the recipe is one for text; whether it is.

    Raises:
        UserError: one line.
    """
    loaded = load_text_config(name, overrides)
    if loaded is None:
        return False
    from . import console, launch
    from .processes import rank

    config, origin = loaded
    if dry_run and rank() > 0:  # of several processes the first one speaks
        return True
    launch.check_run_folder(config, resume=resume)
    from .integrations import trl_run

    parts = trl_run.prepare_text(config, origin)
    if dry_run:
        console.table("Plan", trl_run.plan_text(parts))
        return True
    if rank() > 0:
        trl_run.run_text(
            parts, resume=resume, report=lambda step, row: None, warn=lambda line: None
        )
        return True
    with console.app_beside(config.train.out, wanted=app), console.training(config) as progress:
        path = trl_run.run_text(parts, resume=resume, report=progress.report, warn=progress.warn)
    console.say(f"run folder: {path}")
    console.say(f"the model:  {path / 'model'}")
    console.say(f"the credit: t2i-credit heatmap {path}")
    return True
