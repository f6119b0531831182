"""Trains the detector of the world things from nothing: on rendered scenes, and on those that the image tokenizer drew again.

Some objects of its scenes are broken (half erased, of two halves, their quarters exchanged); it learns that they are none.
Measures nothing: see measure/cards/judge.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...rollout.images import from_uint8
from ..things import grammar
from ..things.detector import CELL, NAMES, Network
from ..things.drawings import CLASSES, COLORS, DRAWINGS
from ..things.scene import GROUNDS, SIZE, Object, Scene, extent, render
from .generator import Progress, resumable, rng_for, schedule, take_step

_G = SIZE // CELL
_NOTHING, _UNJUDGED = 0.0, -1.0


@dataclass(frozen=True)
class JudgePlan:
    """How long it takes.

    Attributes:
        steps, batch, lr: of the training.
        redrawn_share: scenes that went through the image tokenizer.
        crowded_share: scenes of six things.
        broken_share: objects that are broken.
        seed: of everything.
    """

    steps: int = 2600
    batch: int = 48
    lr: float = 2e-3
    redrawn_share: float = 0.6
    crowded_share: float = 0.3
    broken_share: float = 0.15
    seed: int = 0
    checkpoint_every: int = 200


def train_judge(model: Any, folder: Path, plan: JudgePlan, progress: Progress) -> Network:
    """The trained network.

    Args:
        model: the generator, whose image tokenizer draws scenes again.
        folder: of the checkpoints.
    """
    torch.manual_seed(plan.seed)
    network = Network().train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.lr, (0.9, 0.99), weight_decay=0.02)
    for step in resumable(network, optimizer, folder, plan.steps, plan):
        rng = rng_for(plan.seed, 4, step)
        drawn = [_example(plan, rng) for _ in range(plan.batch)]
        images = from_uint8([image for image, _ in drawn])
        again = round(plan.redrawn_share * plan.batch)
        images[:again] = model.decode(model.encode(images[:again]))
        wanted = {name: torch.stack([t[name] for _, t in drawn]) for name in drawn[0][1]}
        with torch.autocast("cpu", torch.bfloat16):
            says = network(images)
        loss, parts = _loss({name: value.float() for name, value in says.items()}, wanted)
        take_step(optimizer, loss, schedule(step, plan.steps, plan.lr), step)
        if (step + 1) % 50 == 0:
            progress("judge", step + 1, plan.steps, parts)
    return network.eval()


def _loss(says: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    centre = wanted["centre"]
    judged, there = centre != _UNJUDGED, centre == 1
    kinds, colors = says["kind"][there], says["color"][there]
    parts = {
        "centre": F.binary_cross_entropy_with_logits(
            says["centre"][judged], centre[judged], reduction="sum"
        )
        / there.sum(),
        "class": F.cross_entropy(kinds, wanted["kind"][there]),
        "colour": F.cross_entropy(colors, wanted["color"][there]),
        "box": F.smooth_l1_loss(says["box"][there], wanted["box"][there], beta=0.1),
        "mask": F.binary_cross_entropy_with_logits(says["mask"], wanted["mask"]),
    }
    loss = torch.stack(list(parts.values())).sum()
    values = {name: value.item() for name, value in parts.items()}
    return loss, {
        **values,
        "right": (kinds.argmax(-1) == wanted["kind"][there]).float().mean().item(),
    }


def _example(
    plan: JudgePlan, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], dict[str, Tensor]]:
    """A picture and what the network should say of it."""
    if rng.random() < plan.crowded_share:
        scene = grammar.crowd(rng)
    else:
        scene = grammar.draw(grammar.GRAMMAR.sample_record(rng), rng)
    image, masks = render(scene)
    image = image.copy()
    broken = [rng.random() < plan.broken_share for _ in scene.objects]
    for obj, spoiled in zip(scene.objects, broken, strict=True):
        if spoiled:
            _break(image, obj, scene, rng)
    return image, _targets(scene, masks, broken)


def _targets(scene: Scene, masks: NDArray[np.bool_], broken: list[bool]) -> dict[str, Tensor]:
    centre = torch.full((_G, _G), _NOTHING)
    kind = torch.zeros((_G, _G), dtype=torch.int64)
    color = torch.zeros((_G, _G), dtype=torch.int64)
    box = torch.zeros((_G, _G, 4))
    places = []
    for obj, spoiled in zip(scene.objects, broken, strict=True):
        x0, y0, x1, y1 = (side / CELL for side in obj.box)
        col, row = min(int((x0 + x1) / 2), _G - 1), min(int((y0 + y1) / 2), _G - 1)
        if not spoiled:
            centre[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2] = _UNJUDGED
            places.append((row, col))
            kind[row, col] = CLASSES.index(obj.name)
            color[row, col] = NAMES.index(obj.shown)
            x, y = col + 0.5, row + 0.5
            box[row, col] = torch.tensor([x - x0, y - y0, x1 - x, y1 - y])
    for row, col in places:
        centre[row, col] = 1.0
    mask = torch.from_numpy(masks.any(0)).float()
    return {"centre": centre, "kind": kind, "color": color, "box": box, "mask": mask}


def _break(image: NDArray[np.uint8], obj: Object, scene: Scene, rng: np.random.Generator) -> None:
    """Spoils an object of an image in place."""
    x0, y0, x1, y1 = obj.box
    part = image[y0:y1, x0:x1]
    h, w = (y1 - y0) // 2, (x1 - x0) // 2
    how = rng.integers(3)
    if how == 0:  # half of it is gone
        ground = np.asarray(GROUNDS[scene.ground], dtype=np.uint8)
        half = (np.s_[:h], np.s_[h:], np.s_[:, :w], np.s_[:, w:])[rng.integers(4)]
        part[half] = ground
    elif how == 1:  # the other half is another thing's
        drawing = int(rng.integers(len(DRAWINGS)))
        if DRAWINGS[drawing].name == obj.name:
            return _break(image, obj, scene, rng)
        color = obj.color or str(rng.choice(list(COLORS)))
        w_other, h_other = extent(drawing, obj.size, obj.angle)
        at = {"x": min(x0, SIZE - w_other), "y": min(y0, SIZE - h_other)}
        alone = replace(obj, drawing=drawing, color=color, mirrored=False, **at)
        other, _ = render(replace(scene, objects=(alone,)))
        half = (np.s_[:h], np.s_[:, :w])[rng.integers(2)]
        part[half] = other[y0:y1, x0:x1][half]
    else:  # its quarters have changed their places
        quarters = [
            part[i * h : i * h + h, j * w : j * w + w].copy() for i in (0, 1) for j in (0, 1)
        ]
        order = ((3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2), (1, 2, 3, 0))[rng.integers(4)]
        for k, source in enumerate(order):
            i, j = divmod(k, 2)
            part[i * h : i * h + h, j * w : j * w + w] = quarters[source]
    return None
