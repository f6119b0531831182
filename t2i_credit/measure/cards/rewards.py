"""Makes the embedded reward models, measures them on scenes drawn afresh, and writes their model card. The training is
worlds/pretrain/rewards.py's."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ...interfaces import Prompt
from ...rewards.aesthetic import AestheticHead
from ...rollout.images import from_uint8
from ...run_folder.atomic import write_folder_atomic
from ...worlds.pretrain.generator import rng_for
from ...worlds.pretrain.rewards import RewardsPlan, pretrain_rewards
from ...worlds.shapes import grammar
from ...worlds.shapes.examples import FLAWS, SPOILS, Example, clean_image, describes, rated_scenes
from ...worlds.shapes.mistakes import neighbour
from ...worlds.shapes.scene import Scene
from ..intervals import markdown_table
from .card import Progress, card, write_card

CHOICES = 32  # images among which a caption has to find its own


def make_rewards(out: Path, work: Path, *, scale: float, seed: int, progress: Progress) -> None:
    """Trains and measures the embedded CLIP and aesthetic head; called again after a stop, it goes on.

    Args:
        out: the folder to write; must not exist. Complete or absent.
        work: checkpoints.
        scale: above 0; multiplies the steps of both stages and the head's scenes.
        seed: of weights and scenes.
        progress: (stage, done, of, latest values).
    """
    plan = RewardsPlan(seed=seed)
    plan = replace(
        plan,
        clip_steps=max(5, round(plan.clip_steps * scale)),
        head_scenes=max(50, round(plan.head_scenes * scale)),
        head_steps=max(5, round(plan.head_steps * scale)),
    )
    began = time.perf_counter()
    pretrain_rewards(work / "written", work, plan, progress, AestheticHead)
    minutes = (time.perf_counter() - began) / 60
    scores = measure(work / "written", progress)
    with write_folder_atomic(out, replace=False) as draft:
        shutil.copytree(work / "written", draft, dirs_exist_ok=True)
        write_card(draft, scores, card_text(scores, _story(plan, minutes)))


def measure(
    folder: Path, progress: Progress, *, rounds: int = 40, scenes: int = 1600
) -> dict[str, Any]:
    """Every figure of the card, by the rewards themselves as a user would name them.

    Args:
        folder: with clip/ and aesthetic_head.safetensors.
        progress: (stage, done, of, values).
        rounds: retrievals of CHOICES captions each, and as many one-word comparisons.
        scenes: spoiled scenes.
    """
    from ...rewards.aesthetic import HEAD, aesthetic
    from ...rewards.clip import clip

    fit = clip(model=str(folder / "clip"), device="cpu")
    looks = aesthetic(head=str(folder / HEAD), model=str(folder / "clip"), device="cpu")
    right, pairs = 0, []
    for i in range(rounds):
        found = retrieval_round(rng_for(21, i))
        right += int((_cosines(fit, found).argmax(1) == torch.arange(CHOICES)).sum())
        pairs += [_prefers_own(fit, pair) for pair in neighbour_pairs(CHOICES, rng_for(22, i))]
        progress("retrieval", i + 1, rounds, {})
    images, strengths, kinds = rated_scenes(scenes, 0.0, rng_for(23))
    scores = looks(from_uint8(images), [Prompt("")] * scenes).numpy()
    progress("aesthetic", scenes, scenes, {})
    by_kind = {kind: np.array([k == kind for k in kinds]) for kind in SPOILS}
    return {
        "retrieval": right / (rounds * CHOICES),
        "one_word": float(np.mean(pairs)),
        "spearman": _spearman(scores, strengths),
        "spearman_by_kind": {k: _spearman(scores[m], strengths[m]) for k, m in by_kind.items()},
        "captions": rounds * CHOICES,
        "spoiled_scenes": scenes,
    }


def retrieval_round(rng: np.random.Generator) -> list[Example]:
    """CHOICES clean scenes with captions, each of which is true of its own scene alone."""
    found: list[Example] = []
    while len(found) < CHOICES:
        record = grammar.sample_record(rng)
        scene = grammar.draw(record, rng)
        if any(describes(record, e.scene) or describes(e.record, scene) for e in found):
            continue
        found.append(_clean(record, scene, rng))
    return found


def neighbour_pairs(count: int, rng: np.random.Generator) -> list[tuple[Example, Example]]:
    """Pairs of clean scenes whose captions differ in one word, and fit their own scene alone."""
    found: list[tuple[Example, Example]] = []
    while len(found) < count:
        record = grammar.sample_record(rng)
        other = neighbour(record, rng)
        if other is None:
            continue
        a, b = grammar.draw(record, rng), grammar.draw(other, rng)
        if not describes(record, b):
            found.append((_clean(record, a, rng), _clean(other, b, rng)))
    return found


def _clean(record: dict[str, Any], scene: Scene, rng: np.random.Generator) -> Example:
    return Example(record, scene, clean_image(scene, rng), None)


def _cosines(fit: Any, shown: list[Example]) -> Tensor:
    """(captions, images)."""
    images = from_uint8([e.image for e in shown])
    texts = fit.tower.texts([e.caption for e in shown], CHOICES)
    return texts @ fit.tower.images(images, CHOICES).T


def _prefers_own(fit: Any, pair: tuple[Example, Example]) -> bool:
    """Whether the first caption fits its own image better than its neighbour's."""
    own, other = _cosines(fit, list(pair))[0].tolist()
    return own > other


def _spearman(scores: Any, strengths: Any) -> float:
    return float(spearmanr(scores, strengths).statistic)


def card_text(scores: Mapping[str, Any], story: str) -> str:
    """The model card in Markdown."""
    kinds = scores["spearman_by_kind"]
    titles = {
        "retrieval": f"a caption finds its image among {CHOICES}, each of which only its own caption is true of "
        f"({scores['captions']:,} captions)",
        "one_word": "a caption prefers its image to that of a caption with one other word "
        f"({scores['captions']:,} pairs; chance 0.5)",
        "spearman": "rank correlation (Spearman) of the aesthetic score with the strength of spoiling "
        f"({scores['spoiled_scenes']:,} scenes; negative: the more spoiled, the lower)",
    }
    return card(
        {"library_name": "open_clip", "pipeline_tag": "zero-shot-image-classification"},
        "The embedded rewards: a CLIP and an aesthetic head for coloured shapes",
        about="`clip/` is an open_clip model (load it as `local-dir:...`), `aesthetic_head.safetensors` a head in the layout of "
        "LAION's improved aesthetic predictor, over the CLIP's image embedding. Half precision. They know the words and "
        "pictures of the embedded world alone, and exist so that the rewards `clip` and `aesthetic` run anywhere.",
        made=f"## How they were made\n\n{story}",
        scores=[
            "Scenes drawn afresh, with other seeds than in training; half of the clean ones are softened by up to half a pixel.",
            markdown_table(
                ["figure", "value"],
                ([title, f"{scores[key]:.3f}"] for key, title in titles.items()),
            ),
            "That correlation by kind:",
            markdown_table(kinds, [[f"{value:.3f}" for value in kinds.values()]]),
        ],
    )


def _story(plan: RewardsPlan, minutes: float) -> str:
    """How the command made the models."""
    flaws = ", ".join(FLAWS.values())
    return (
        f"```\nt2i-credit pretrain shapes --only rewards --seed {plan.seed}\n```\n\n"
        f"CLIP: {plan.clip_steps:,} steps of {plan.clip_batch} scenes, rendered afresh for every step, with true captions; a "
        "caption that is true of another image of its batch does not count as wrong for it. "
        f"{plan.flawed_share:.0%} of the scenes are spoiled (t2i_credit/worlds/shapes/examples.py) and their captions say so ({flaws}). "
        f"Head: {plan.head_steps:,} steps of {plan.head_batch} out of {plan.head_scenes:,} scenes over the frozen CLIP, "
        "least squares against 10 - 9 x strength. Held-out compositions occur in no scene and in no caption. "
        f"The last start of the command took {minutes:.0f} minutes."
    )
