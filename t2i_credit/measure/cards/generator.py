"""Makes the embedded generator from nothing, measures it, and writes its model card. The training is worlds/pretrain/generator.py's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...api.models import CFG_SCALE
from ...errors import ModelError, UserError
from ...geneval import judge
from ...interfaces import ImageTokenModel, Prompt
from ...prompts.records import TASKS
from ...rollout.images import from_uint8, to_uint8
from ...run_folder.atomic import write_folder_atomic
from ...worlds.pretrain.generator import PretrainPlan, pretrain, rng_for, train_tokenizer
from ...worlds.world import World, find_world
from ..evaluation.evaluate import Detect, evaluate
from ..evaluation.protocol import Protocol
from ..intervals import markdown_table, with_interval
from .card import Progress, card, write_card
from .rewards import make_rewards
from .text import make_text_model

PARTS = {  # of a world, in the order in which they are made
    "shapes": ("generator", "rewards"),
    "things": ("judge", "generator"),
    "arithmetic": ("text",),
}
PLANS = {
    "shapes": PretrainPlan(),
    "things": PretrainPlan(
        tokenizer_steps=9000,
        tokenizer_batch=32,
        edges=1.0,
        corpus_scenes=150_000,
        task_weights=(1.0, 1.5, 1.5, 1.5, 2.5, 2.5),
        transformer_steps=12_000,
        transformer_batch=64,
        transformer_lr=1.5e-3,
        mixed=True,
        checkpoint_every=200,
    ),
}
SIZES: dict[str, dict[str, Any]] = {
    "shapes": {},
    "things": {
        "image_size": 96,
        "patch": 8,
        "vq_channels": (128,),
        "codebook_size": 1024,
        "hidden_size": 192,
        "layers": 6,
        "heads": 3,
    },
}
CFG_SCALES = (1.0, 2.0, 3.0, 5.0, 8.0)
TEMPERATURES = (0.1, 0.3, 0.7, 1.0)


def make_world(
    world: str,
    out: Path,
    *,
    rewards_out: Path | None = None,
    only: str | None = None,
    work: Path | None = None,
    scale: float = 1.0,
    seed: int = 0,
    progress: Progress,
) -> list[Path]:
    """Trains and measures what a world has in PARTS; called again after a stop, it goes on.

    Args:
        world: "shapes", "things" or "arithmetic".
        out: the folder to write the generator to, or the text model.
        rewards_out: the folder to write a CLIP and an aesthetic head to; None = OUT-rewards. The judge goes to OUT-judge.
        only: one of its parts; None = all, or those whose folder does not exist yet. Not for arithmetic.
        work: checkpoints and corpus; None = beside `out`.
        scale: above 0; multiplies the steps of every stage.
        seed: of weights, scenes and captions.
        progress: (stage, done, of, latest values).

    Returns:
        The folders that were written, each complete or absent at any time.

    Raises:
        ModelError: an unknown world or part, a scale that is not above 0, or nothing is left to write.
    """
    if world not in PARTS:
        raise ModelError(f"world {world!r} is not known; known: {', '.join(PARTS)}")
    parts = PARTS[world]
    if world == "arithmetic" and (only or rewards_out):
        raise ModelError("--only, --rewards-out: the arithmetic world has a text model alone")
    if only is not None and only not in parts:
        raise ModelError(f"--only: {only!r} is not allowed; allowed: {', '.join(parts)}")
    if rewards_out and "rewards" not in parts:
        raise ModelError(f"--rewards-out: the world {world} has no reward models")
    if not scale > 0:
        raise ModelError(f"--scale: {scale} is not allowed; above 0")
    beside = {name: out.with_name(f"{out.name}-{name}") for name in ("rewards", "judge")}
    beside |= {"rewards": rewards_out} if rewards_out else {}
    wanted = {part: beside.get(part, out) for part in ([only] if only else parts)}
    missing = {part: folder for part, folder in wanted.items() if not folder.exists()}
    if not missing:
        found = " and ".join(str(folder) for folder in wanted.values())
        raise ModelError(f"{found}: exists; name another --out, or delete it")
    work = work or out.with_name(out.name + ".work")
    makers: dict[str, Callable[..., None]] = {
        "generator": partial(make_generator, world=world),
        "judge": make_judge,
        "rewards": make_rewards,
        "text": make_text_model,
    }
    for part, folder in missing.items():
        place = work / "rewards" if part == "rewards" else work
        makers[part](folder, place, scale=scale, seed=seed, progress=progress)
    return list(missing.values())


def make_generator(
    out: Path, work: Path, *, world: str, scale: float, seed: int, progress: Progress
) -> None:
    """Trains and measures the embedded generator of a world; see `make_world`."""
    from ...models.embedded_model import EmbeddedModel

    of = find_world(world)
    plan, model = _untrained(of, scale=scale, seed=seed)
    began = time.perf_counter()
    pretrain(model, of, work, plan, progress)
    minutes = (time.perf_counter() - began) / 60
    with write_folder_atomic(out, replace=False) as draft:
        model.half().save_pretrained(draft)
        written = EmbeddedModel.from_pretrained(draft)
        scores = measure(written, of, progress)
        write_card(draft, scores, card_text(scores, of, _story(plan, of, minutes), written))


def _untrained(world: World, *, scale: float, seed: int) -> tuple[PretrainPlan, Any]:
    """The plan of a world's generator, and the generator."""
    from ...models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer

    plan = PLANS[world.name]
    plan = replace(
        plan,
        seed=seed,
        tokenizer_steps=max(50, round(plan.tokenizer_steps * scale)),
        corpus_scenes=max(500, round(plan.corpus_scenes * scale / 500) * 500),
        transformer_steps=max(50, round(plan.transformer_steps * scale)),
    )
    torch.manual_seed(seed)
    config = EmbeddedConfig(**SIZES[world.name], world=world.name)
    return plan, EmbeddedModel(config, build_text_tokenizer(world.grammar.words()))


def make_judge(out: Path, work: Path, *, scale: float, seed: int, progress: Progress) -> None:
    """Trains and measures the detector of the things, on scenes that the generator's image tokenizer draws again, which is
    trained first unless it was; see `make_world`."""
    from ...worlds.pretrain.judge import JudgePlan, train_judge
    from .judge import write_judge

    world = find_world("things")
    plan, model = _untrained(world, scale=scale, seed=seed)
    train_tokenizer(model, world, work / "tokenizer", plan, progress)
    steps = max(50, round(JudgePlan.steps * scale))
    network = train_judge(model, work / "judge", JudgePlan(steps=steps, seed=seed), progress)
    with write_folder_atomic(out, replace=False) as draft:
        write_judge(draft, network, model, world, progress)


def reconstruction_scores(
    model: Any, world: World, *, per_task: int = 300, seed: int = 12
) -> dict[str, float]:
    """Share of rendered scenes per task that the detector still judges correct after encode and decode."""
    found = {}
    for n, task in enumerate(TASKS):
        rng = rng_for(seed, n)
        records = [world.grammar.sample_record(rng, [task]) for _ in range(per_task)]
        images = [world.render(world.draw(record, rng))[0] for record in records]
        drawn = to_uint8(model.decode(model.encode(from_uint8(images))))
        verdicts = [judge(d, r).correct for d, r in zip(world.detect(drawn), records, strict=True)]
        found[task] = float(np.mean(verdicts))
    return found


def measure(model: Any, world: World, progress: Progress) -> dict[str, Any]:
    """Every figure of the card: reconstruction, scores by task and split, pass@8, table over guidance and temperature."""

    def bar(stage: str) -> Callable[[int, int], None]:
        return lambda done, of: progress(stage, done, of, {})

    def summary(stage: str, split: str, per_task: int, protocol: Protocol) -> dict[str, Any]:
        prompts = world.evaluation_prompts(split, per_task)
        return evaluate(model, prompts, world.detect, protocol, progress=bar(stage)).summary()

    base = Protocol(images_per_prompt=4, cfg_scale=CFG_SCALE)
    eight = replace(base, images_per_prompt=8, seed=1)
    heldin = summary("held-in", "train", 100, eight)
    heldout = summary("held-out", "heldout", 50, base)
    table = grid_table(
        model,
        world.evaluation_prompts("train", 50),
        world.detect,
        cfg_scales=CFG_SCALES,
        temperatures=TEMPERATURES,
        protocol=base,
        progress=bar("table"),
    )
    return {
        "reconstruction": reconstruction_scores(model, world),
        "cfg_scale": CFG_SCALE,
        "heldin": heldin,
        "heldout": heldout,
        "table": table,
        "best_cell": dict(best_cell(table)),
    }


def card_text(scores: Mapping[str, Any], world: World, story: str, model: Any) -> str:
    """The model card in Markdown."""
    tokenizer = sum(p.numel() for p in model.vq.parameters())
    transformer = sum(p.numel() for p in model.parameters() if p.requires_grad)
    h, w = model.grid
    rows = []
    for task, row in scores["heldin"].items():
        other, again = scores["heldout"].get(task), scores["reconstruction"].get(task)
        heldin, heldout = (
            with_interval(r["correct"], r["low"], r["high"]) if r else "" for r in (row, other)
        )
        differing = f"{row['disagreement']:.2f}"
        last = "" if again is None else f"{again:.3f}"
        rows.append([task, heldin, f"{row['pass_at_k']:.3f}", differing, heldout, last])
    cells = {(c["cfg_scale"], c["temperature"]): f"{c['overall']:.3f}" for c in scores["table"]}
    best = scores["best_cell"]
    return card(
        {"library_name": "t2i-credit", "pipeline_tag": "text-to-image"},
        f"The embedded generator: {world.about}",
        about=f"A `diffusers.VQModel` ({tokenizer:,} parameters) and a `transformers.LlamaModel` over its codes "
        f"({transformer:,} parameters with embeddings and head). Images of {model.config.image_size} x "
        f"{model.config.image_size} pixels as {h} x {w} tokens out of {model.codebook_size} codes. It exists to be "
        "fine-tuned: its drawings are clean, and its mistakes are about meaning.",
        made=f"## How it was made\n\n{story}",
        scores=[
            f"GenEval tasks, share of correct images, guidance {scores['cfg_scale']:g}, temperature 1. Held-in: 100 prompts "
            "a task x 8 images; held-out: 50 prompts a task x 4. Differing: share of token positions at which two images "
            "of a prompt differ. Reconstruction: rendered scenes that are still judged correct after the image tokenizer.",
            markdown_table(
                [
                    "task",
                    "held-in [95%]",
                    "pass@8",
                    "differing",
                    "held-out [95%]",
                    "reconstruction",
                ],
                rows,
            ),
            "Overall held-in score by guidance (rows) and temperature (columns), 50 prompts a task x 4 images:",
            markdown_table(
                ["cfg", *(f"{t:g}" for t in TEMPERATURES)],
                ([f"{cfg:g}", *(cells[cfg, t] for t in TEMPERATURES)] for cfg in CFG_SCALES),
            ),
            f"Best cell: {best['overall']:.3f} at guidance {best['cfg_scale']:g}, temperature {best['temperature']:g}.",
        ],
    )


def _story(plan: PretrainPlan, world: World, minutes: float) -> str:
    """How the command made the model."""
    return (
        f"```\nt2i-credit pretrain {world.name} --only generator --seed {plan.seed}\n```\n\n"
        f"Image tokenizer: {plan.tokenizer_steps:,} steps of {plan.tokenizer_batch} rendered scenes. Transformer: "
        f"{plan.transformer_steps:,} steps of {plan.transformer_batch} out of {plan.corpus_scenes:,} scenes, "
        f"the first {plan.curated_share:.0%} of them with true captions, the rest with noisy ones. The last start of the "
        f"command took {minutes:.0f} minutes. Each word of a caption is wrong with its own probability, for some words more "
        f"often than not (`CONFUSIONS` in t2i_credit/worlds/{world.name}/mistakes.py). Held-out compositions occur in no "
        "scene and in no caption."
    )


def grid_table(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    detect: Detect,
    *,
    cfg_scales: Sequence[float],
    temperatures: Sequence[float],
    protocol: Protocol,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, float]]:
    """The overall score under every pair of guidance scale and temperature, all under the same noise.

    Args:
        protocol: everything else; its own scale and temperature are not used.
        progress: called with the cells done and the cells in all.

    Returns:
        one dict per cell, scale by scale: cfg_scale, temperature, overall, low, high.
    """
    cells = [
        replace(protocol, cfg_scale=scale, temperature=temperature)
        for scale, temperature in product(cfg_scales, temperatures)
    ]
    if not cells:
        raise UserError("cfg_scales, temperatures: at least one of each is needed")
    table = []
    for done, cell in enumerate(cells, 1):
        overall = evaluate(model, prompts, detect, cell).summary()["overall"]
        scores = {"overall": overall["correct"], "low": overall["low"], "high": overall["high"]}
        table.append({"cfg_scale": cell.cfg_scale, "temperature": cell.temperature, **scores})
        progress(done, len(cells))
    return table


def best_cell(table: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The cell of the highest overall score, of equals the first. The best of many flatters itself: a fair figure
    for it comes from another seed."""
    return max(table, key=lambda cell: cell["overall"])
