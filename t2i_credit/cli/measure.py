"""Commands that measure: evaluate, bench, compare, truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ..errors import UserError
from .app import ModelArg, Overrides, app, local, path_option


@app.command()
def evaluate(
    model: Annotated[
        str | None,
        Argument(
            help="shapes, arithmetic, a folder, a hub id, or a run (run@STEP)", callback=local
        ),
    ] = None,
    images: Annotated[
        Path | None, path_option("judge a folder of images instead of a model")
    ] = None,
    against: Annotated[
        str | None,
        path_option("what to compare with: a model, a folder of images, a .json, a results .jsonl"),
    ] = None,
    results: Annotated[
        Path | None, path_option("sum up a file of GenEval's own results (.jsonl) instead")
    ] = None,
    reward: Annotated[
        list[str] | None,
        Option(help="judge by rewards, any texts: NAME, or NAME.PARAMETER=VALUE; several times"),
    ] = None,
    prompts: Annotated[
        str | None,
        path_option("GenEval records, or with --reward any texts: a file, or hf://datasets/..."),
    ] = None,
    prompt_column: Annotated[
        str | None, Option(help="its column or key of prompts; left out = prompt, caption or text")
    ] = None,
    split: Annotated[
        str, Option(help="of the embedded world: train (held-in) or heldout")
    ] = "train",
    per_task: Annotated[
        int | None,
        Option(help="prompts per task of the split, 50; of text, problems in all, 300", min=1),
    ] = None,
    per_prompt: Annotated[
        int | None,
        Option(help="images per prompt; 4, or as many as the folder has; of text, 8", min=1),
    ] = None,
    cfg_scale: Annotated[
        float | None, Option(help="guidance, 1 = none; left out = the run's own, else 2")
    ] = None,
    negative: Annotated[
        str | None, Option(help="one negative prompt for all; left out = the prompts' own")
    ] = None,
    temperature: Annotated[float | None, Option(help="above 0; 1")] = None,
    seed: Annotated[int | None, Option(help="never a seed of training; 0", min=0)] = None,
    detector: Annotated[
        str | None, Option(help="who finds the objects; left out = that of the model's world")
    ] = None,
    protocol: Annotated[
        list[str] | None, Option(help="any other setting, such as threshold=0.5")
    ] = None,
    out: Annotated[
        Path | None,
        path_option("folder; left out = evaluations/ of the run, else evaluations/MODEL/"),
    ] = None,
) -> None:
    """GenEval's six tasks: scores with 95% intervals, paired differences, a page with every image. Of text, exact answers.

    Example: t2i-credit evaluate runs/shapes-gcpo --against shapes
    Any texts: t2i-credit evaluate MODEL --prompts drawbench.csv --reward pickscore --reward clip
    """
    from ..measure.evaluation.command import evaluate_named
    from ..measure.evaluation.protocol import parse_settings
    from ..text.models import is_text_model
    from . import console

    sampled = {"temperature": temperature, "seed": seed}
    if model is not None and is_text_model(model):
        asked = {"split": split, "problems": per_task, "answers": per_prompt, **sampled}
        of_images: dict[str, Any] = {"--images": images, "--prompts": prompts, "--results": results}
        of_images |= {"--prompt-column": prompt_column, "--reward": reward, "--negative": negative}
        of_images |= {"--cfg-scale": cfg_scale, "--detector": detector, "--protocol": protocol}
        unused = [name for name, value in of_images.items() if value is not None]
        _evaluate_text(model, against, out, asked, unused)
        return
    named = {"images_per_prompt": per_prompt, "cfg_scale": cfg_scale, "detector": detector}
    given = {key: value for key, value in {**named, **sampled}.items() if value is not None}
    settings = {**given, **parse_settings(protocol or [])}
    with console.bar("evaluating") as progress:
        report = evaluate_named(
            model,
            images,
            against,
            results=results,
            source=prompts,
            column=prompt_column,
            negative=negative,
            rewards=reward or (),
            split=split,
            per_task=per_task or 50,
            out=out,
            progress=progress,
            warn=console.warning,
            **settings,
        )
    console.show_evaluation(report)


def _evaluate_text(
    model: str, against: str | None, out: Path | None, asked: dict[str, Any], unused: list[str]
) -> None:
    from ..errors import ConfigError
    from ..measure.evaluation.text import TextProtocol, evaluate_text_model, score_rows
    from . import console

    if unused:
        raise ConfigError(f"{', '.join(unused)}: for images alone; {model} is a text model")
    protocol = TextProtocol(**{key: value for key, value in asked.items() if value is not None})
    with console.bar("evaluating") as progress:
        found, path = evaluate_text_model(model, protocol, against, out=out, progress=progress)
    console.rows(f"{protocol.name} (k = {protocol.answers})", score_rows(found))
    console.say(f"written: {path}")


@app.command()
def bench(
    words: Annotated[
        list[str] | None,
        Argument(
            metavar="[PART]... [KEY=VALUE]...",
            help="rollout, update, step, rewards; none = all; and overrides of shapes/grpo",
        ),
    ] = None,
    model: Annotated[
        str,
        path_option(
            "shapes, a folder, or with --random-init janus-small, janus-pro-1b, janus-pro-7b"
        ),
    ] = "shapes",
    random_init: Annotated[bool, Option(help="random weights, no download")] = False,
    repeats: Annotated[int, Option(help="interleaved repeats", min=3)] = 15,
    json: Annotated[Path | None, path_option("file to save every number in")] = None,
) -> None:
    """Measures speed and memory, each variant beside its rival in the same run; some minutes.

    Example: t2i-credit bench rollout --model janus-pro-1b --random-init rollout.group_size=32
    """
    from ..measure.bench.command import bench_of
    from ..measure.bench.timing import passes_line, table
    from ..run_folder.atomic import write_json
    from . import console

    if json is not None and not json.parent.is_dir():
        raise UserError(f"--json: there is no folder {json.parent}")
    with console.bar("measuring") as progress:
        report = bench_of(
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
        Argument(metavar="RECIPE... [KEY=VALUE]...", help="two or more, and overrides for all"),
    ],
    seeds: Annotated[int, Option(help="runs of each recipe, at least 2")] = 5,
    first_seed: Annotated[int, Option(help="the seeds count up from here", min=0)] = 0,
    out: Annotated[Path, path_option("folder of all runs and results")] = Path("comparison"),
    base: Annotated[str | None, path_option("the model that all begin from")] = None,
    baseline: Annotated[
        str | None, Option(help="method that sets the target; left out = grpo")
    ] = None,
    workers: Annotated[int, Option(help="runs side by side, a core each", min=1)] = 1,
    prompts: Annotated[
        int | None,
        Option(help="evaluation: prompts per task, 50; of text, problems in all, 300", min=1),
    ] = None,
    images: Annotated[
        int | None, Option(help="evaluation: images per prompt, 4, or answers, 8", min=1)
    ] = None,
    cfg_scale: Annotated[
        float | None,
        Option(help="evaluation: guidance; left out = the first recipe's; of images alone", min=1),
    ] = None,
    evaluate_on: Annotated[
        str | None,
        path_option("evaluation: GenEval records, a file or hf://...; left out = shapes"),
    ] = None,
    detector: Annotated[
        str | None, Option(help="evaluation: who finds objects; left out = shapes")
    ] = None,
    search: Annotated[
        str | None,
        Option(help="KEY=VALUE,VALUE: every method first finds its own, by training reward"),
    ] = None,
    search_seeds: Annotated[
        int, Option(help="runs of each recipe and value in that search", min=1)
    ] = 2,
    plan: Annotated[bool, Option("--plan", help="print runs and time, stop")] = False,
) -> None:
    """Trains recipes x seeds from one base on the same prompts; run it again to go on where it stopped.

    Example: t2i-credit compare shapes/grpo shapes/gcpo --seeds 5 --workers 2 --out comparisons/first
    """
    from ..measure.comparison.command import (
        baseline_of,
        compare_runs,
        plan_rows,
        runs_of,
        search_runs,
    )
    from ..measure.comparison.results import method_rows, pair_rows, search_rows
    from ..measure.comparison.search import Search
    from . import console

    named = [word for word in recipes if "=" not in word]
    overrides = [word for word in recipes if "=" in word]
    if evaluate_on is not None and prompts is not None:
        raise UserError(
            "--prompts: of the embedded world; the file of --evaluate-on is taken whole"
        )
    asked = {
        "prompts": prompts,
        "samples": images,
        "cfg_scale": cfg_scale,
        "source": evaluate_on,
        "detector": detector,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    where: dict[str, Any] = {"out": out, "base": base, "overrides": overrides}
    counted: dict[str, Any] = {"seeds": seeds, "first_seed": first_seed}
    compared = range(first_seed, first_seed + seeds)
    wanted = None if search is None else Search.of(search, search_seeds, compared)
    tries = wanted.runs(named, **where) if wanted else {}
    runs = runs_of(named, **counted, **where, ignored=wanted.key if wanted else None)
    baseline_of(runs, baseline)
    if plan:
        every = [*(run for of_value in tries.values() for run in of_value), *runs]
        rows, hours = plan_rows(every, workers)
        console.rows(f"about {hours:.1f} hours of training with {workers} side by side", rows)
        return
    how: dict[str, Any] = {
        "evaluation": runs[0].kind.plan(runs[0].config, **given),
        "baseline": baseline,
        "workers": workers,
        "say": console.say,
    }
    searched = None
    if wanted:
        searched, own = search_runs(wanted, tries, **how)
        console.rows(f"{wanted.key}: area under the training reward", search_rows(searched))
        runs = runs_of(named, **counted, **where, own=own)
    found = compare_runs(runs, **how, searched=searched)
    console.rows("Methods", method_rows(found))
    console.rows("Paired differences over seeds", pair_rows(found))
    console.say(f"written: {out / 'comparison.json'}, comparison.md, comparison.png")


@app.command()
def truth(
    model: ModelArg,
    overrides: Overrides = None,
    credit: Annotated[
        list[str] | None, Option(help="NAME[,key=value...]; repeat for more; left out = all")
    ] = None,
    measure: Annotated[
        list[str] | None,
        Option(
            help="localisation, causality, specificity, gradients; left out = all, or the oracle"
        ),
    ] = None,
    detector: Annotated[
        str | None,
        Option(help="who finds the objects; left out = the geneval reward's, or shapes"),
    ] = None,
    threshold: Annotated[
        float | None, Option(help="confidence of an object; left out = the verdict's")
    ] = None,
    like: Annotated[
        str | None, path_option("recipe of sampling, reward and loss; left out = the run's own")
    ] = None,
    prompts: Annotated[int, Option(help="prompts per task; of text, problems in all", min=1)] = 8,
    images: Annotated[int, Option(help="images per prompt, or answers", min=1)] = 4,
    share: Annotated[float, Option(help="share of the tokens that are changed")] = 0.2,
    repeats: Annotated[int, Option(help="independent redraws", min=1)] = 1,
    batches: Annotated[int, Option(help="independent batches of the gradients", min=3)] = 24,
    oracle: Annotated[
        int, Option(help="continuations of each unfinished picture, at least 8; 0 = none")
    ] = 0,
    coverage: Annotated[
        float, Option(help="share of a cell that puts its token on an object")
    ] = 0.25,
    seed: Annotated[int, Option(help="of prompts and noise", min=0)] = 0,
    out: Annotated[Path, path_option("folder of truth.json, .md and .png")] = Path("truth"),
) -> None:
    """Measures whether credit is right: where it lies, what it decides, and whether it cleans the gradient.

    Example: t2i-credit truth shapes --credit guidance_contrast --credit top_entropy --batches 80
    """
    from ..measure.truth.command import truth_of, truth_of_text_model
    from ..measure.truth.measures import MEASURES
    from ..measure.truth.report import about, tables
    from ..text.models import is_text_model
    from . import console

    text = is_text_model(model)
    given: dict[str, Any] = {"--measure": measure, "--like": like, "KEY=VALUE": overrides}
    given |= {"--detector": detector, "--threshold": threshold, "--oracle": oracle or None}
    shared: dict[str, Any] = {"credits": credit or [], "seed": seed, "out": out}
    with console.bar("measuring") as progress:
        if text:
            found = truth_of_text_model(
                model,
                unused=[name for name, value in given.items() if value not in (None, [])],
                problems=prompts,
                group_size=images,
                continuations=repeats,
                progress=progress,
                **shared,
            )
        else:
            found = truth_of(
                model,
                recipe=like,
                overrides=overrides or [],
                detector=detector,
                threshold=threshold,
                measures=tuple(measure or (() if oracle else MEASURES)),
                per_task=prompts,
                images=images,
                share=share,
                repeats=repeats,
                coverage=coverage,
                batches=batches,
                oracle=oracle,
                progress=progress,
                **shared,
            )
    console.say(about(found))
    for title, rows in tables(found).items():
        console.rows(title, rows)
    console.say(f"written: {out / 'truth.json'}, truth.md{'' if text else ', truth.png'}")
