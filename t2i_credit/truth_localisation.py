"""Does the credit lie on the prompted objects? Masks on the token grid, and how well scores find them.

Says nothing of what changes the reward (truth_causality.py). Shapes: P prompts, G samples of each, B = P*G samples,
T = H*W image tokens in raster order, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .geneval import Detection
from .interfaces import Prompt
from .truth_statistics import auroc, bootstrap_interval, mass_inside, per_prompt, pointing

COVERAGE = 0.25  # a token lies on an object if the objects cover at least this share of its cell

Objects = Sequence[Sequence[Mapping[str, Any]]]  # per sample, as the run folder keeps them


def object_tokens(
    objects: Objects,
    grid: tuple[int, int],
    image_size: tuple[int, int],
    *,
    keep: Callable[[int, Mapping[str, Any]], bool] = lambda sample, one: bool(one["prompted"]),
    coverage: float = COVERAGE,
) -> Tensor:
    """(B, T) bool: tokens whose cell is covered by at least `coverage` by the kept objects together.

    Args:
        objects: each with its mask (h, w), or None and then its box (x0, y0, x1, y1) counts whole.
        grid: (H, W).
        image_size: (h, w).
        keep: which objects count, from the sample's number and the object; by default the prompted ones.
        coverage: in (0, 1].
    """
    pixels = torch.zeros(len(objects), 1, *image_size)
    for b, found in enumerate(objects):
        for one in found:
            if keep(b, one):
                pixels[b, 0][torch.from_numpy(_mask(one, image_size))] = 1.0
    return (F.adaptive_avg_pool2d(pixels, grid) >= coverage).flatten(1)


def described(
    prompts: Sequence[Prompt], found: Sequence[Mapping[str, Sequence[Detection]]]
) -> list[list[dict[str, Any]]]:
    """What a detector found on each sample, {class: objects}, as the run folder keeps it: with whether its prompt names it."""
    samples = []
    for prompt, objects in zip(prompts, found, strict=True):
        wanted = {c["class"] for c in prompt.spec["include"]} if prompt.spec else set()
        samples.append(
            [
                {
                    "name": name,
                    "color": d.color,
                    "confidence": d.confidence,
                    "box": list(d.box),
                    "mask": d.mask,
                    "prompted": name in wanted,
                }
                for name, detections in objects.items()
                for d in detections
            ]
        )
    return samples


def _mask(one: Mapping[str, Any], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    if one.get("mask") is not None:
        return np.asarray(one["mask"], dtype=bool)
    mask = np.zeros(image_size, dtype=bool)
    x0, y0, x1, y1 = (max(0, round(float(side))) for side in one["box"])
    mask[y0:y1, x0:x1] = True
    return mask


def localisation(
    scores: Mapping[str, Tensor], on_object: Tensor, group_size: int, baselines: Sequence[str]
) -> dict[str, Any]:
    """AUROC, mass and pointing of every score, with 95% intervals over prompts.

    Args:
        scores: {name: (B, T)}, at least 0.
        on_object: (B, T) bool. Samples with no token on or no token off an object are left out.
        group_size: G.
        baselines: names out of `scores`; the AUROC of every other one is compared with theirs.

    Returns:
        samples used; area: share of tokens on objects; per name: auroc, mass (share of the score on objects),
        pointing, each [mean, low, high], and auroc_ahead {baseline: [difference, low, high]}.
    """
    inside = on_object.numpy()
    used = inside.any(1) & ~inside.all(1)

    def column(values: NDArray[Any]) -> NDArray[np.float64]:
        return per_prompt(np.where(used, values, np.nan), group_size)

    aurocs = {name: column(auroc(score.numpy(), inside)) for name, score in scores.items()}
    found: dict[str, Any] = {}
    for name, score in scores.items():
        found[name] = {
            "auroc": bootstrap_interval(aurocs[name]),
            "mass": bootstrap_interval(column(mass_inside(score.numpy(), inside))),
            "pointing": bootstrap_interval(column(pointing(score.numpy(), inside))),
        }
        if name not in baselines:
            found[name]["auroc_ahead"] = {
                other: bootstrap_interval(aurocs[name] - aurocs[other]) for other in baselines
            }
    area = bootstrap_interval(column(inside.mean(1)))
    return {"samples": int(used.sum()), "area": area, "assigners": found}


@torch.no_grad()
def live_localisation(
    credit: Tensor, objects: Objects, grid: tuple[int, int], image_size: tuple[int, int]
) -> dict[str, float]:
    """The figures of a training step's kept samples, {} where no object was found.

    Args:
        credit: (B, T).
        objects: what was found on each sample.
        grid, image_size: (H, W) tokens and (h, w) pixels.
    """
    inside = object_tokens(objects, grid, image_size).numpy()
    used = inside.any(1) & ~inside.all(1)
    if not used.any():
        return {}
    scores, inside = credit.cpu().numpy()[used], inside[used]
    return {
        "truth/auroc": float(auroc(scores, inside).mean()),
        "truth/mass": float(mass_inside(scores, inside).mean()),
        "truth/area": float(inside.mean()),
        "truth/pointing": float(pointing(scores, inside).mean()),
    }
