"""Commands that make what a run needs: prompts, the embedded models, a reward server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .app import ConfigArg, Overrides, app, path_option


@app.command()
def prompts(
    out: Annotated[Path, path_option("the prompt file to write")],
    per_task: Annotated[int, Option(help="prompts per task, if there are as many", min=1)],
    names: Annotated[
        Path | None, path_option("object names, one a line; left out = COCO's 80")
    ] = None,
    colors: Annotated[str | None, Option(help="such as red,blue; left out = GenEval's 10")] = None,
    relations: Annotated[str | None, Option(help='such as "left of,above"')] = None,
    tasks: Annotated[str | None, Option(help="such as colors,counting")] = None,
    not_in: Annotated[
        list[str] | None, path_option("a prompt file to keep away from, such as the test's")
    ] = None,
    seed: Annotated[int, Option(help="the same seed, the same prompts", min=0)] = 0,
) -> None:
    """Makes a prompt file in GenEval's style, whose prompts are in no other.

    Example: t2i-credit prompts --out train.jsonl --per-task 100 --not-in evaluation_metadata.jsonl
    """
    from ..prompts.generate import write_prompt_file
    from . import console

    lists = {"colors": colors, "relations": relations, "tasks": tasks}
    words = {key: value.split(",") for key, value in lists.items() if value is not None}
    held = write_prompt_file(
        out, per_task=per_task, seed=seed, names=names, not_in=not_in or [], **words
    )
    for task, count in held.items():
        short = "" if count == per_task else f" of {per_task}: no more are left of these words"
        console.say(f"{task}: {count}{short}")
    console.say(f"prompts: {out}")


@app.command()
def pretrain(
    world: Annotated[str, Argument(help="shapes, things or arithmetic")],
    out: Annotated[Path, path_option("the folder to write the generator or text model to")] = Path(
        "pretrained"
    ),
    rewards_out: Annotated[
        Path | None,
        path_option("the folder for its CLIP and aesthetic head; left out = OUT-rewards"),
    ] = None,
    only: Annotated[
        str | None, Option(help="generator, rewards (shapes) or judge (things); left out = all")
    ] = None,
    work: Annotated[
        Path | None, path_option("checkpoints, to resume from; left out = OUT.work")
    ] = None,
    scale: Annotated[float, Option(help="multiplies the steps of every stage, for a trial")] = 1.0,
    seed: Annotated[int, Option(help="of weights, scenes and captions", min=0)] = 0,
) -> None:
    """Trains a world's generator and reward models, or its text model, from nothing; run it again to resume.

    Example: t2i-credit pretrain shapes --out my-shapes
    """
    from ..measure.cards.generator import make_world
    from . import console

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
def fit_critic(
    config: ConfigArg,
    out: Annotated[Path, path_option("the file to write")],
    overrides: Overrides = None,
    batches: Annotated[int, Option(help="steps' worth of images, at least 8")] = 120,
    passes: Annotated[int, Option(help="how often it learns from them")] = 6,
) -> None:
    """Fits a critic to rollouts of a generator, so that runs with `credit: {name: value}` begin with it (critic.file).

    Example: t2i-credit fit-critic shapes/value --out critic.safetensors
    """
    from ..api.critic import fit_critic as fit
    from ..config.schema import load_config
    from . import console

    settings = load_config(config, overrides or [])
    with console.stages() as progress:
        found = fit(settings, out, batches=batches, passes=passes, report=progress)
    shown = {n: v if isinstance(v, int) else f"{float(f'{v:.3g}'):g}" for n, v in found.items()}
    console.table("Critic, on images that it did not learn from", shown)
    console.say(f"written: {out}")
    console.say(f"use it:  t2i-credit train {config} critic.file={out}")


@app.command()
def serve_reward(
    config: ConfigArg,
    overrides: Overrides = None,
    host: Annotated[
        str, Option(help="address to listen on; others than this machine's need a token")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="0 = any that is free", min=0, max=65535)] = 8765,
    token: Annotated[
        str | None, Option(help="what clients must know; better in $T2I_CREDIT_REWARD_TOKEN")
    ] = None,
    max_megabytes: Annotated[float, Option(help="of a request, packed and unpacked", min=1)] = 256,
) -> None:
    """Serves the reward of a configuration to `reward: {remote: {url: ...}}` of others.

    Example: t2i-credit serve-reward shapes/grpo --port 8765
    """
    from ..api.parts import build_reward
    from ..config.schema import load_config
    from ..rewards.server import create_app, listen, serve
    from ..rewards.wire import token_or_environment
    from . import console

    settings = load_config(config, overrides or [])
    token = token_or_environment(token, "--token")
    listener = listen(host, port, token=token)
    reward, names = build_reward(settings), list(settings.reward)
    application = create_app(reward, names=names, token=token, max_megabytes=max_megabytes)
    console.say(f"serving {', '.join(names)} on http://{host}:{listener.getsockname()[1]}")
    serve(application, listener)
