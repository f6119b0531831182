"""Commands that make a run and show it: train, sample, heatmap, app, export, demo, config."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from typer import Argument, Option

from ..app.server import PORT, SPIN_VARIABLE
from .app import ConfigArg, ModelArg, Overrides, app, local, path_option


@app.command()
def train(
    config: ConfigArg,
    overrides: Overrides = None,
    resume: Annotated[bool, Option(help="continue at the newest checkpoint")] = False,
    dry_run: Annotated[bool, Option(help="check everything, print the plan, stop")] = False,
    app: Annotated[bool, Option(help="serve the app beside the training")] = False,
) -> None:
    """Fine-tunes a generator, or the language model of a text recipe.

    Start with shapes/recommended here, and with janus-pro-1b/recommended on a GPU; `t2i-credit config` lists all recipes.

    Example: t2i-credit train shapes/recommended train.steps=100 train.name=try
    """
    from ..config.schema import load_config
    from ..config.text import load_text_config

    text = load_text_config(config, overrides or [])
    settings: Any = text[0] if text else load_config(config, overrides or [])
    # all of these load torch, and a misspelt key is said before
    from ..api import launch
    from ..api.parts import prepare
    from ..app.server import app_beside
    from ..measure.bench.plan import plan
    from ..training.processes import rank
    from ..training.stopping import Stop
    from . import console

    if dry_run and rank() > 0:  # of several processes the first one speaks
        return
    launch.check_run_folder(settings, resume=resume)
    with Stop(launch.run_path(settings)).heeded():  # while models load; then the run does
        if text:
            from ..text.run import plan_text, prepare_text, run_text

            kind: Any = (prepare_text(*text), plan_text, run_text)
        else:
            kind = (prepare(settings), plan, launch.run_training)
    parts, plan_of, run = kind
    if dry_run:
        console.table("Plan", plan_of(parts))
        return
    if rank() > 0:
        run(parts, resume=resume, report=lambda step, row: None, warn=lambda line: None)
        return
    out = settings.train.out
    with app_beside(out, wanted=app), console.training(settings) as progress:
        path = run(parts, resume=resume, report=progress.report, warn=progress.warn)
    console.say(f"run folder: {path}")
    if text:
        console.say(f"the model:  {path / 'model'}")
        console.say(f"the credit: t2i-credit heatmap {quote(str(path))}")
    else:
        console.say(f"pictures:   t2i-credit heatmap {quote(str(path))}")
        console.say(f"the app:    t2i-credit app {quote(str(out))}")


@app.command()
def sample(
    model: ModelArg,
    prompt: Annotated[str, Argument(help="the positive prompt")],
    negative: Annotated[
        str | None, Option(help="the negative prompt; left out = the null prompt")
    ] = None,
    count: Annotated[int, Option(help="images", min=1, max=1024)] = 8,
    cfg_scale: Annotated[
        float | None, Option(help="guidance, 1 = none; left out = the run's own, else 2")
    ] = None,
    temperature: Annotated[
        float | None, Option(help="above 0; left out = the model's own, else 1")
    ] = None,
    seed: Annotated[int, Option(help="the same seed, the same images", min=0)] = 0,
    out: Annotated[Path, path_option("folder for the pictures")] = Path("samples"),
) -> None:
    """Samples images and shows where the two prompts disagree.

    Example: t2i-credit sample shapes "a photo of a red circle and a blue square" --count 4
    """
    from ..api.sample import sample_to_folder
    from ..errors import UserError
    from ..prompts.written import is_null_word
    from . import console

    if is_null_word(negative):
        raise UserError(f"--negative: {negative!r} is a text; leave it out for the null prompt")
    files = sample_to_folder(
        model,
        prompt,
        negative,
        count=count,
        cfg_scale=cfg_scale,
        temperature=temperature,
        seed=seed,
        out=out,
    )
    console.say(f"{len(files)} files in {out}")


@app.command()
def heatmap(
    run: Annotated[Path, Argument(help="a run folder", callback=local)],
    step: Annotated[int | None, Option(help="which step; left out = the newest")] = None,
    out: Annotated[Path | None, path_option("left out = heatmaps/ of the run")] = None,
    html: Annotated[
        bool, Option("--html", help="one HTML file: the step, or without --step the run")
    ] = False,
) -> None:
    """Draws the credit of a step: a panel per sample, a contact sheet, a film of one prompt; of text, a page.

    Example: t2i-credit heatmap runs/shapes-gcpo --step 100
    """
    from ..errors import RunError
    from ..heatmap.files import write_animation, write_heatmaps
    from ..heatmap.text import write_text_heatmap
    from ..run_folder.reader import RunReader
    from . import console

    if RunReader(run).is_text():
        console.say(f"tokens: {write_text_heatmap(run, step, out)}")
        return
    if html:
        from ..app.single_file import write_page

        file = write_page(run, step, out)
        console.say(f"one file: {file} ({file.stat().st_size / 1e6:.1f} MB)")
        return
    files = write_heatmaps(run, step, out)
    console.say(f"contact sheet: {files[0]}")
    console.say(f"panels:        {len(files) - 1} beside it")
    try:
        film = write_animation(run, out=None if out is None else out / "credit.gif")
        console.say(f"film:          {film}")
    except RunError as error:  # a run of one recorded step has pictures, but no film
        console.say(f"no film: {error}")


@app.command("app")
def serve_app(
    runs: Annotated[
        Path, Argument(metavar="[RUNS]", help="a folder of runs, or one run", callback=local)
    ] = (Path("runs")),
    host: Annotated[str, Option(help="any but a loopback address demands --login")] = "127.0.0.1",
    port: Annotated[int, Option(help="0 = any that is free", min=0, max=65535)] = PORT,
    login: Annotated[
        str | None, Option(help="NAME:PASSWORD; left out = $T2I_CREDIT_LOGIN, if set")
    ] = None,
    allow_training: Annotated[
        bool, Option(help="trainings may be started from the page; on this machine alone")
    ] = False,
    opened: Annotated[
        str | None,
        Option("--open", help="open a browser there: 'run=demo&step=110', as in a copied link"),
    ] = None,
) -> None:
    """Serves the app: watch a run live, look at its credit, sample, compare.

    Example: t2i-credit app runs
    """
    # The playground samples beside a training. OpenMP threads of two programs that spin while they wait starve each
    # other on shared cores (docs/performance.md); ours give way. GNU's library reads this when torch loads it.
    os.environ.setdefault(SPIN_VARIABLE, "1000")
    from ..app.server import serve
    from . import console

    if not runs.exists():
        console.warning(f"{runs}: no such folder yet; runs that are written there will appear")
    serve(
        runs,
        host=host,
        port=port,
        login=login,
        allow_training=allow_training,
        opened=opened,
        say=console.say,
    )


@app.command()
def export(
    run: Annotated[str, Argument(metavar="RUN", help="a run folder (run@STEP)", callback=local)],
    out: Annotated[Path, Argument(metavar="OUT", help="the model folder to write", callback=local)],
    push: Annotated[str | None, Option(help="hub id to upload it to, too")] = None,
) -> None:
    """Writes a run's model as a folder that others load: adapter merged, with a model card.

    Example: t2i-credit export runs/shapes-gcpo my-model
    """
    from ..api.export import export as write
    from . import console

    console.say(f"model: {write(run, out, push=push)}")


@app.command()
def demo(
    out: Annotated[Path, path_option("folder of the run")] = Path("runs"),
    steps: Annotated[int | None, Option(help="fewer, for a quick look")] = None,
) -> None:
    """Evaluates the embedded generator, fine-tunes it with GCPO, evaluates again, draws the credit.

    Example: t2i-credit demo
    """
    from . import demo as demonstration

    demonstration.run(out, steps=steps)


@app.command()
def config(
    name: Annotated[str | None, Argument(help="a file or recipe; left out = all keys")] = None,
    overrides: Overrides = None,
) -> None:
    """Prints a resolved configuration, or every key with its default and meaning.

    Example: t2i-credit config shapes/gcpo optim.lr=1e-4
    """
    from ..config.describe import describe
    from ..config.files import list_recipes
    from ..config.schema import load_config, to_yaml
    from ..config.text import load_text_config
    from ..rewards import REWARDS
    from . import console

    if name is not None:
        text = load_text_config(name, overrides or [])
        console.plain(to_yaml(text[0] if text else load_config(name, overrides or [])))
        return
    for row in describe(REWARDS):
        console.plain(f"{row.key}  [{row.type}, {row.default}]  {row.explanation}")
    console.plain(f"recipes: {', '.join(list_recipes())}")
    console.plain(f"recipes for text: {', '.join(list_recipes(text=True))}")
