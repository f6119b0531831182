"""Measures the detector of the world things and writes its model card. The training is worlds/pretrain/judge.py's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from ...geneval import Detection, judge, keep
from ...prompts.records import TASKS
from ...rollout.images import from_uint8, to_uint8
from ...worlds.pretrain.generator import rng_for
from ...worlds.things.detector import WEIGHTS, Network, detect_with
from ...worlds.world import World
from ..intervals import markdown_table
from .card import Progress, card, write_card

WORST = 15  # confusions that the card shows


def write_judge(
    out: Path, network: Network, model: Any, world: World, progress: Progress
) -> dict[str, Any]:
    """Writes the weights in half precision, and the card of what they do."""
    state = {name: t.half().contiguous() for name, t in network.state_dict().items()}
    save_file(state, out / WEIGHTS.name, {"format": "pt"})
    network.load_state_dict({name: t.float() for name, t in state.items()})
    scores = measure(network.eval(), model, world, progress)
    write_card(out, scores, card_text(scores))
    return scores


def measure(
    network: Network,
    model: Any,
    world: World,
    progress: Progress = lambda *_: None,
    *,
    per_task: int = 300,
    seed: int = 13,
) -> dict[str, Any]:
    """How often scenes drawn afresh are judged right, as rendered and redrawn by the image tokenizer; what is taken for what.

    Args:
        model: the generator, whose image tokenizer draws again.
        per_task: scenes.
    """
    right: dict[str, dict[str, float]] = {"rendered": {}, "redrawn": {}}
    classes: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in right}
    colors: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in right}
    overlap: dict[str, list[float]] = {kind: [] for kind in right}
    for n, task in enumerate(TASKS):
        rng = rng_for(seed, n)
        records = [world.grammar.sample_record(rng, [task]) for _ in range(per_task)]
        scenes = [world.draw(record, rng) for record in records]
        drawn = [world.render(scene) for scene in scenes]
        images = np.stack([image for image, _ in drawn])
        again = to_uint8(model.decode(model.encode(from_uint8(list(images)))))
        for kind, pictures in (("rendered", images), ("redrawn", again)):
            found = detect_with(network, pictures, masks=True)
            pairs = zip(found, records, strict=True)
            right[kind][task] = float(np.mean([judge(f, r).correct for f, r in pairs]))
            for seen, scene, (_, masks) in zip(found, scenes, drawn, strict=True):
                for (name, color), (other, hue), iou in _matched(seen, scene.objects, masks):
                    classes[kind][name, other] += 1
                    overlap[kind] += [iou] if iou else []
                    if other == name:
                        colors[kind][color, hue] += 1
        progress("judge's card", n + 1, len(TASKS), {})
    return {
        "right": right,
        "classes": {kind: _table(found) for kind, found in classes.items()},
        "colors": {kind: _table(found) for kind, found in colors.items()},
        "mask_iou": {kind: float(np.mean(found)) for kind, found in overlap.items()},
        "milliseconds": _milliseconds(network, images),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _matched(
    seen: dict[str, list[Detection]], objects: Sequence[Any], masks: NDArray[np.bool_]
) -> list[tuple[tuple[str, str], tuple[str, str], float]]:
    """For each object: its class and colour, those of the found one at its place, and the overlap of their masks; what
    nobody found is "nothing", and what nobody drew is found at "nothing"."""
    kept = [(name, one) for name, ones in keep(seen, "").items() for one in ones]
    matched = []
    for obj, mask in zip(objects, masks, strict=True):
        truth = (obj.name, str(obj.shown))
        near = sorted(((_distance(obj.box, one.box), i) for i, (_, one) in enumerate(kept)))
        if not near or near[0][0] > 8:
            matched.append((truth, ("nothing", "nothing"), 0.0))
            continue
        name, one = kept.pop(near[0][1])
        assert one.mask is not None
        iou = float((one.mask & mask).sum() / (one.mask | mask).sum())
        matched.append((truth, (name, str(one.color)), iou))
    nothing = ("nothing", "nothing")
    return matched + [(nothing, (name, str(one.color)), 0.0) for name, one in kept]


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Between the middles of two boxes, in pixels."""
    return float(np.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2)


def _table(found: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (name, other), count in sorted(found.items()):
        table.setdefault(name, {})[other] = count
    return table


def _milliseconds(network: Network, images: NDArray[np.uint8]) -> float:
    """Of one image in batches of 64 on one core, the median of five."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    for _ in range(5):
        began = time.process_time()
        detect_with(network, images[:64])
        taken.append(1000 * (time.process_time() - began) / 64)
    torch.set_num_threads(threads)
    return float(np.median(taken))


def card_text(scores: dict[str, Any]) -> str:
    """The model card in Markdown."""
    rows = [
        [task, *(f"{scores['right'][kind][task]:.3f}" for kind in ("rendered", "redrawn"))]
        for task in TASKS
    ]
    return card(
        {"library_name": "t2i-credit", "pipeline_tag": "object-detection"},
        "The judge of the embedded world things",
        about=f"A centre-point network of {scores['parameters']:,} parameters over images of 96 x 96 pixels: class, colour, "
        f"box and mask of each thing, in {scores['milliseconds']:.1f} ms an image on one core (batches of 64). Its masks "
        f"overlap the drawn ones by {scores['mask_iou']['rendered']:.2f} (intersection over union; redrawn scenes "
        f"{scores['mask_iou']['redrawn']:.2f}).",
        made="## How it was made\n\n```\nt2i-credit pretrain things --only judge --seed 0\n```\n\nTrained on rendered "
        "scenes and on those that the image tokenizer drew again; some things in them are broken, and count as none.",
        scores=[
            "Share of scenes drawn afresh that are judged right, 300 a task: as rendered, and redrawn by the image tokenizer.",
            markdown_table(["task", "rendered", "redrawn"], rows),
            f"What it takes for what in redrawn scenes, the {WORST} most frequent (nothing: not found, or not there):",
            markdown_table(["drawn", "seen", "times", "of"], _worst(scores["classes"]["redrawn"])),
            "The same of the colours of things whose class it got right (None: the drawing's own, which is none of the ten):",
            markdown_table(["drawn", "seen", "times", "of"], _worst(scores["colors"]["redrawn"])),
        ],
    )


def _worst(table: dict[str, dict[str, int]]) -> list[list[str]]:
    wrong = [
        (count, name, other, sum(row.values()))
        for name, row in table.items()
        for other, count in row.items()
        if other != name
    ]
    return [[n, o, str(c), str(of)] for c, n, o, of in sorted(wrong, reverse=True)[:WORST]]
