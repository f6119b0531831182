"""The command line: verbs over api.py. Computes nothing; heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UserError

app = typer.Typer(
    name="t2i-credit",
    help="Reinforcement learning for image-token generators, with credit for every token.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigArg = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, or a recipe's name")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="such as optim.lr=3e-4")
]
ModelArg = Annotated[
    str, typer.Argument(metavar="MODEL", help="shapes, a model folder, or a run (run@STEP)")
]


@app.command()
def train(
    config: ConfigArg,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="continue at the newest checkpoint")] = False,
    dry_run: Annotated[bool, typer.Option(help="check everything, print the plan, stop")] = False,
    app: Annotated[bool, typer.Option(help="serve the app beside the training")] = False,
) -> None:
    """Fine-tunes a generator, or the language model of a text recipe.

    Example: t2i-credit train shapes/gcpo train.steps=100 train.name=try
    """
    from . import api, console, launch, texting
    from .config import load_config
    from .processes import rank

    if texting.train(config, overrides or [], resume=resume, dry_run=dry_run, app=app):
        return
    settings = load_config(config, overrides or [])
    launch.check_run_folder(settings, resume=resume)
    parts = api.prepare(settings)
    if dry_run:
        console.table("Plan", api.plan(parts))
        return
    if rank() > 0:  # of several processes the first one speaks
        api.run_training(
            parts, resume=resume, report=lambda step, row: None, warn=lambda line: None
        )
        return
    out = settings.train.out
    with console.app_beside(out, wanted=app), console.training(parts.config) as progress:
        path = api.run_training(parts, resume=resume, report=progress.report, warn=progress.warn)
    console.say(f"run folder: {path}")
    console.say(f"pictures:   t2i-credit heatmap {path}")
    console.say(f"the app:    t2i-credit app {out}")


@app.command()
def sample(
    model: ModelArg,
    prompt: Annotated[str, typer.Argument(help="the positive prompt")],
    negative: Annotated[
        str | None, typer.Option(help="the negative prompt; left out = the null prompt")
    ] = None,
    count: Annotated[int, typer.Option(help="images", min=1, max=1024)] = 8,
    cfg_scale: Annotated[float, typer.Option(help="guidance, 1 = none")] = 2.0,
    temperature: Annotated[float, typer.Option(help="above 0")] = 1.0,
    seed: Annotated[int, typer.Option(help="the same seed, the same images", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("samples"),
) -> None:
    """Samples images and shows where the two prompts disagree.

    Example: t2i-credit sample shapes "a photo of a red circle and a blue square" --count 4
    """
    from . import console, sampling

    files = sampling.sample_to_folder(
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
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="shapes, a model folder, or a run (run@STEP)")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="judge a folder of images instead of a model")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="what to compare with: a model, a folder of images, a .json")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="GenEval records: a file, or hf://datasets/owner/name/file")
    ] = None,
    split: Annotated[
        str, typer.Option(help="of the embedded world: train (held-in) or heldout")
    ] = "train",
    per_task: Annotated[int, typer.Option(help="prompts per task of the split", min=1)] = 50,
    per_prompt: Annotated[
        int | None, typer.Option(help="images per prompt; 4, or as many as the folder has", min=1)
    ] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(help="guidance, 1 = none; left out = that of the recipes")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="above 0; 1")] = None,
    seed: Annotated[int | None, typer.Option(help="never a seed of training; 0", min=0)] = None,
    detector: Annotated[str, typer.Option(help="who finds the objects")] = "shapes",
    protocol: Annotated[
        list[str] | None, typer.Option(help="any other setting, such as threshold=0.5")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder; left out = evaluations/, of the run if it is one")
    ] = None,
) -> None:
    """GenEval's six tasks: scores with 95% intervals, paired differences, a page with every image.

    Example: t2i-credit evaluate runs/shapes-gcpo --against shapes
    """
    from . import console, judging
    from .protocol import parse_settings

    named = {"images_per_prompt": per_prompt, "cfg_scale": cfg_scale, "temperature": temperature}
    given = {key: value for key, value in {**named, "seed": seed}.items() if value is not None}
    settings = {**given, "detector": detector, **parse_settings(protocol or [])}
    with console.bar("evaluating") as progress:
        report = judging.evaluate_named(
            model,
            images,
            against,
            source=prompts,
            split=split,
            per_task=per_task,
            out=out,
            progress=progress,
            warn=console.warning,
            **settings,
        )
    console.show_evaluation(report)


@app.command()
def prompts(
    out: Annotated[Path, typer.Option(help="the prompt file to write")],
    per_task: Annotated[int, typer.Option(help="prompts per task, if there are as many", min=1)],
    names: Annotated[
        Path | None, typer.Option(help="object names, one a line; left out = COCO's 80")
    ] = None,
    colors: Annotated[
        str | None, typer.Option(help="such as red,blue; left out = GenEval's 10")
    ] = None,
    relations: Annotated[str | None, typer.Option(help='such as "left of,above"')] = None,
    tasks: Annotated[str | None, typer.Option(help="such as colors,counting")] = None,
    not_in: Annotated[
        list[str] | None, typer.Option(help="a prompt file to keep away from, such as the test's")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed, the same prompts", min=0)] = 0,
) -> None:
    """Makes a prompt file in GenEval's style, whose prompts are in no other.

    Example: t2i-credit prompts --out train.jsonl --per-task 100 --not-in evaluation_metadata.jsonl
    """
    from . import console, geneval_prompts

    lists = {"colors": colors, "relations": relations, "tasks": tasks}
    words = {key: value.split(",") for key, value in lists.items() if value is not None}
    held = geneval_prompts.write_prompt_file(
        out, per_task=per_task, seed=seed, names=names, not_in=not_in or [], **words
    )
    for task, count in held.items():
        short = "" if count == per_task else f" of {per_task}: no more are left of these words"
        console.say(f"{task}: {count}{short}")
    console.say(f"prompts: {out}")


@app.command()
def heatmap(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    step: Annotated[int | None, typer.Option(help="which step; left out = the newest")] = None,
    out: Annotated[Path | None, typer.Option(help="left out = heatmaps/ of the run")] = None,
) -> None:
    """Draws the credit of a step: a panel per sample, a contact sheet, a film of one prompt; of text, a page.

    Example: t2i-credit heatmap runs/shapes-gcpo --step 100
    """
    from . import console
    from .errors import RunError
    from .heatmap_files import write_animation, write_heatmaps
    from .heatmap_text import write_text_heatmap
    from .run_reader import RunReader

    if RunReader(run).is_text():
        console.say(f"tokens: {write_text_heatmap(run, step, out)}")
        return
    files = write_heatmaps(run, step, out)
    console.say(f"contact sheet: {files[0]}")
    console.say(f"panels:        {len(files) - 1} beside it")
    try:
        console.say(f"film:          {write_animation(run)}")
    except RunError as error:  # a run of one recorded step has pictures, but no film
        console.say(f"no film: {error}")


@app.command("app")
def serve_app(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="a folder of runs, or one run")] = (
        Path("runs")
    ),
    host: Annotated[
        str, typer.Option(help="any but a loopback address demands --login")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free", min=0, max=65535)] = 7860,
    login: Annotated[
        str | None, typer.Option(help="NAME:PASSWORD; left out = $T2I_CREDIT_LOGIN, if set")
    ] = None,
) -> None:
    """Serves the app: watch a run live, look at its credit, sample, compare.

    Example: t2i-credit app runs
    """
    from .app.server import serve

    serve(runs, host=host, port=port, login=login)


@app.command()
def bench(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]... [KEY=VALUE]...",
            help="rollout, update, step, rewards; none = all; and overrides of shapes/grpo",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="shapes, a folder, or with --random-init janus-small, janus-pro-1b")
    ] = "shapes",
    random_init: Annotated[bool, typer.Option(help="random weights, no download")] = False,
    repeats: Annotated[int, typer.Option(help="interleaved repeats", min=3)] = 15,
    json: Annotated[Path | None, typer.Option(help="file to save every number in")] = None,
) -> None:
    """Measures speed and memory, each variant beside its rival in the same run; some minutes.

    Example: t2i-credit bench rollout --model janus-pro-1b --random-init rollout.group_size=32
    """
    from . import benching, console
    from .atomic import write_json
    from .bench_statistics import passes_line, table

    if json is not None and not json.parent.is_dir():
        raise UserError(f"--json: there is no folder {json.parent}")
    with console.bar("measuring") as progress:
        report = benching.bench_of(
            model, words or [], random_init=random_init, repeats=repeats, progress=progress
        )
    console.rows("Medians; 95% intervals of the ratio, or of ours alone", table(report))
    if report["passes"]:
        console.say(passes_line(report["passes"]))
    if json is not None:
        write_json(json, report)


@app.command()
def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE... [KEY=VALUE]...", help="two or more, and overrides for all"
        ),
    ],
    seeds: Annotated[int, typer.Option(help="runs of each recipe, at least 2")] = 5,
    first_seed: Annotated[int, typer.Option(help="the seeds count up from here", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="folder of all runs and results")] = Path("comparison"),
    base: Annotated[str | None, typer.Option(help="the model that all begin from")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="method that sets the target; left out = grpo")
    ] = None,
    workers: Annotated[int, typer.Option(help="runs side by side, a core each", min=1)] = 1,
    prompts: Annotated[int, typer.Option(help="evaluation: prompts per task", min=1)] = 50,
    images: Annotated[int, typer.Option(help="evaluation: images per prompt", min=1)] = 4,
    cfg_scale: Annotated[float, typer.Option(help="evaluation: guidance", min=1)] = 2.0,
    plan: Annotated[bool, typer.Option("--plan", help="print runs and time, stop")] = False,
) -> None:
    """Trains recipes x seeds from one base on the same prompts; run it again to go on where it stopped.

    Example: t2i-credit compare shapes/grpo shapes/gcpo --seeds 5 --workers 2 --out comparisons/first
    """
    from . import comparing, console
    from .compare import method_rows, pair_rows
    from .compare_runs import EvaluationPlan

    named = [word for word in recipes if "=" not in word]
    overrides = [word for word in recipes if "=" in word]
    runs = comparing.runs_of(
        named, seeds=seeds, first_seed=first_seed, out=out, base=base, overrides=overrides
    )
    if plan:
        rows, hours = comparing.plan_rows(runs, workers)
        console.rows(f"about {hours:.1f} hours of training with {workers} side by side", rows)
        return
    evaluation = EvaluationPlan(prompts=prompts, images=images, cfg_scale=cfg_scale)
    found = comparing.compare_runs(
        runs, evaluation=evaluation, baseline=baseline, workers=workers, say=console.say
    )
    console.rows("Methods", method_rows(found))
    console.rows("Paired differences over seeds", pair_rows(found))
    console.say(f"written: {out / 'comparison.json'}, comparison.md, comparison.png")


@app.command()
def truth(
    model: ModelArg,
    overrides: Overrides = None,
    credit: Annotated[
        list[str] | None, typer.Option(help="NAME[,key=value...]; repeat for more; left out = all")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="localisation, causality, specificity, gradients; left out = all"),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="recipe of sampling, reward and loss; left out = the run's own"),
    ] = None,
    prompts: Annotated[int, typer.Option(help="prompts per task; of text, problems in all")] = 8,
    images: Annotated[int, typer.Option(help="images per prompt, or answers")] = 4,
    share: Annotated[float, typer.Option(help="share of the tokens that are changed")] = 0.2,
    repeats: Annotated[int, typer.Option(help="independent redraws")] = 1,
    batches: Annotated[int, typer.Option(help="independent batches of the gradients")] = 24,
    coverage: Annotated[
        float, typer.Option(help="share of a cell that puts its token on an object")
    ] = 0.25,
    seed: Annotated[int, typer.Option(help="of prompts and noise")] = 0,
    out: Annotated[Path, typer.Option(help="folder of truth.json, .md and .png")] = Path("truth"),
) -> None:
    """Measures whether credit is right: where it lies, what it decides, and whether it cleans the gradient.

    Example: t2i-credit truth shapes --credit guidance_contrast --credit top_entropy --batches 80
    """
    from . import console, measuring
    from .measuring_text import is_text_model
    from .truth_report import about, tables

    if is_text_model(model):
        given = {"--measure": measure, "--like": like, "KEY=VALUE": overrides}
        _truth_of_text(
            model,
            credits=credit or [],
            unused=[name for name, value in given.items() if value],
            out=out,
            problems=prompts,
            group_size=images,
            continuations=repeats,
            seed=seed,
        )
        return
    with console.bar("measuring") as progress:
        found = measuring.truth_of(
            model,
            recipe=like,
            overrides=overrides or [],
            credits=credit or [],
            out=out,
            progress=progress,
            **({"measures": tuple(measure)} if measure else {}),
            per_task=prompts,
            images=images,
            share=share,
            repeats=repeats,
            coverage=coverage,
            batches=batches,
            seed=seed,
        )
    console.say(about(found))
    for title, rows in tables(found).items():
        console.rows(title, rows)
    console.say(f"written: {out / 'truth.json'}, truth.md, truth.png")


def _truth_of_text(model: str, *, out: Path, **settings: Any) -> None:
    from . import console
    from .measuring_text import truth_of_text_model
    from .truth_text_report import about, tables

    with console.bar("measuring") as progress:
        found = truth_of_text_model(model, out=out, progress=progress, **settings)
    console.say(about(found))
    for title, rows in tables(found).items():
        console.rows(title, rows)
    console.say(f"written: {out / 'truth.json'}, truth.md")


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder (run@STEP)")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the model folder to write")],
    push: Annotated[str | None, typer.Option(help="hub id to upload it to, too")] = None,
) -> None:
    """Writes a run's model as a folder that others load: adapter merged, with a model card.

    Example: t2i-credit export runs/shapes-gcpo my-model
    """
    from . import console
    from .export import export as write

    console.say(f"model: {write(run, out, push=push)}")


@app.command()
def pretrain(
    world: Annotated[str, typer.Argument(help="shapes or arithmetic")],
    out: Annotated[
        Path, typer.Option(help="the folder to write the generator or text model to")
    ] = Path("pretrained"),
    rewards_out: Annotated[
        Path | None,
        typer.Option(help="the folder for its CLIP and aesthetic head; left out = OUT-rewards"),
    ] = None,
    only: Annotated[str | None, typer.Option(help="generator or rewards; left out = both")] = None,
    work: Annotated[
        Path | None, typer.Option(help="checkpoints, to resume from; left out = OUT.work")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="multiplies the steps of every stage, for a trial")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="of weights, scenes and captions", min=0)] = 0,
) -> None:
    """Trains a world's generator and reward models, or its text model, from nothing; run it again to resume.

    Example: t2i-credit pretrain shapes --out my-shapes
    """
    from . import console
    from .model_card import make_world

    with console.stages() as progress:
        folders = make_world(
            world,
            out,
            rewards_out=rewards_out,
            only=only,
            work=work,
            scale=scale,
            seed=seed,
            progress=progress,
        )
    for folder in folders:
        console.say(f"written: {folder}")


@app.command()
def serve_reward(
    config: ConfigArg,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine's need a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free", min=0, max=65535)] = 8765,
    token: Annotated[
        str | None, typer.Option(help="what clients must know; better in $T2I_CREDIT_REWARD_TOKEN")
    ] = None,
    max_megabytes: Annotated[
        float, typer.Option(help="of a request, packed and unpacked", min=1)
    ] = 256,
) -> None:
    """Serves the reward of a configuration to `reward: {remote: {url: ...}}` of others.

    Example: t2i-credit serve-reward shapes/grpo --port 8765
    """
    from . import api, console
    from .config import load_config
    from .reward_server import create_app, listen, serve
    from .reward_wire import token_or_environment

    settings = load_config(config, overrides or [])
    token = token_or_environment(token, "--token")
    listener = listen(host, port, token=token)
    reward, names = api.build_reward(settings), list(settings.reward)
    application = create_app(reward, names=names, token=token, max_megabytes=max_megabytes)
    console.say(f"serving {', '.join(names)} on http://{host}:{listener.getsockname()[1]}")
    serve(application, listener)


@app.command()
def config(
    name: Annotated[
        str | None, typer.Argument(help="a file or recipe; left out = all keys")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Prints a resolved configuration, or every key with its default and meaning.

    Example: t2i-credit config shapes/gcpo optim.lr=1e-4
    """
    from . import console
    from .config import describe, list_recipes, load_config, to_yaml
    from .text_config import load_text_config

    if name is not None:
        text = load_text_config(name, overrides or [])
        console.plain(to_yaml(text[0] if text else load_config(name, overrides or [])))
        return
    for row in describe():
        console.plain(f"{row.key}  [{row.type}, {row.default}]  {row.explanation}")
    console.plain(f"recipes: {', '.join(list_recipes())}")
    console.plain(f"recipes for text: {', '.join(list_recipes(text=True))}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder of the run")] = Path("runs"),
    steps: Annotated[int | None, typer.Option(help="fewer, for a quick look")] = None,
) -> None:
    """Evaluates the embedded generator, fine-tunes it with GCPO, evaluates again, draws the credit.

    Example: t2i-credit demo
    """
    from . import demo as demonstration

    demonstration.run(out, steps=steps)


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
