"""`make demo`: evaluate the embedded generator, fine-tune it with GCPO, evaluate again, draw the credit, tell it all.

Computes nothing itself. Run again after a stop, it takes up the training where it was.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any

from ..api import launch
from ..api.launch import run_training
from ..api.parts import prepare
from ..config.schema import load_config
from ..errors import RunError
from ..heatmap.files import write_animation, write_heatmaps
from ..measure.evaluation.command import evaluate_model
from ..measure.evaluation.store import Report
from ..run_folder.reader import RunReader
from . import console

RECIPE = "shapes/gcpo"
SPLITS = {"train": "held-in", "heldout": "held-out"}


def run(out: Path, *, steps: int | None = None, per_task: int = 50) -> None:
    """The whole demonstration, into `out`/demo; the base's own evaluation, of `per_task` prompts a task and split, beside
    it."""
    began = time.perf_counter()
    overrides = [f"train.out={json.dumps(str(out))}", "train.name=demo"]
    if steps is not None:
        overrides.append(f"train.steps={steps}")
    config = load_config(RECIPE, overrides)
    path = launch.run_path(config)
    finished = (
        path.exists() and RunReader(path, strict=False).status(strict=False).state == "finished"
    )
    console.say("t2i-credit demo: about 10 minutes on two CPU cores; run it again to resume\n")

    console.say("1/4  the base model: how often does it draw what it is asked for? (half a minute)")
    asked = {
        "per_task": per_task,
        "cfg_scale": config.rollout.cfg_scale,
        "temperature": config.rollout.temperature,
    }
    base = path.with_name(f"{path.name}-base")
    before = {split: _evaluate("shapes", split, out=base, **asked) for split in SPLITS}

    console.say(f"2/4  fine-tuning with {RECIPE}: {config.train.steps} steps, the reward is live")
    if finished:
        console.say(f"     {path} is already trained; delete it to train again")
    else:
        parts = prepare(config)
        with console.training(config) as progress:
            run_training(parts, resume=path.exists(), report=progress.report, warn=progress.warn)

    console.say("3/4  the fine-tuned model, on the same prompts and noise (half a minute)")
    after = {
        split: _evaluate(str(path), split, against=str(before[split].path), **asked)
        for split in SPLITS
    }

    console.say("4/4  drawing where the credit went")
    sheet = write_heatmaps(path, telling_step(path))[0]
    film = write_animation(path)

    _tell(path, after, sheet, film, time.perf_counter() - began)


def _evaluate(model: str, split: str, **settings: Any) -> Report:
    with console.bar(f"     images, {SPLITS[split]} prompts") as progress:
        return evaluate_model(model, split=split, progress=progress, **settings)


def telling_step(path: Path) -> int:
    """The recorded step with the most to see: the largest sum of absolute advantages, so right and wrong images in every
    group. At the end most groups agree, and no token gets any blame."""
    reader = RunReader(path)
    return max(
        reader.steps(),
        key=lambda step: sum(abs(sample["advantage"]) for sample in reader.samples(step)),
    )


def heldout_line(metrics: list[dict[str, Any]], window: int = 20) -> str:
    """The rewards that were logged and not trained on: their means over the first and the last steps of a run."""
    first, last = metrics[:window], metrics[-window:]
    found = []
    for key in (key for key in metrics[-1] if key.startswith("heldout/")):
        means = [fmean(step[key] for step in steps if key in step) for steps in (first, last)]
        found.append(f"{key.removeprefix('heldout/')} {means[0]:.3f} -> {means[1]:.3f}")
    steps = f"first and last {min(window, len(metrics))} steps"
    return f"never trained on, {steps}: {', '.join(found)}"


def base_card() -> dict[str, Any]:
    """The measured figures of the embedded generator's model card.

    Raises:
        RunError: the package lacks them.
    """
    from ..models import EMBEDDED

    path = EMBEDDED / "shapes" / "scores.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable: {error}") from None
    return found


def _tell(path: Path, reports: dict[str, Report], sheet: Path, film: Path, seconds: float) -> None:
    """The final table, the pictures, and what to try next."""
    lines = [
        {"prompts": name, **row}
        for split, name in SPLITS.items()
        for row in console.change_rows(reports[split])
    ]
    console.say("")
    console.rows("GenEval tasks, share of images that are right", lines)
    best = base_card()["best_cell"]
    console.say(
        f"best cell of the base's table of guidance and temperature: {best['overall']:.3f} "
        f"(cfg {best['cfg_scale']:g}, temperature {best['temperature']:g}, held-in)"
    )
    pair = reports["train"].against, reports["train"].evaluation
    spread = [e.summary()["overall"]["disagreement"] for e in pair if e]
    console.say(
        f"tokens that differ between two images of a prompt: {spread[0]:.2f} -> {spread[1]:.2f}"
    )
    console.say(heldout_line(RunReader(path).metrics()))
    console.say(f"took {seconds / 60:.1f} minutes\n")
    console.say(f"contact sheet  {sheet}")
    console.say(f"film           {film}")
    console.say(f"run folder     {path}\n")
    console.say("try next:")
    command = _command()
    console.say(
        f"  {command} app {quote(str(path.parent))}    # the run in the browser, token by token"
    )
    console.say(f'  {command} sample shapes "a photo of an orange ring" --negative "a red ring"')
    console.say(
        f"  {command} evaluate {quote(str(path))} --against shapes --split heldout --per-task 100"
    )
    console.say(f"  {command} train shapes/grpo")


def _command() -> str:
    """The command line as it can be typed here."""
    if shutil.which("t2i-credit"):
        return "t2i-credit"
    path = Path(sys.executable).with_name("t2i-credit")
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
