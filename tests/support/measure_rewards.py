"""Scores a second of every reward at its real size, on this machine. Not a test: `python tests/support/measure_rewards.py [NAME ...]`.

The large models have random weights in the published architectures and the real on-disk layouts: time does not depend
on what the weights say. PickScore's image encoder is that of HPSv2. Prompts are encoded before the clock starts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_detectors as tiny

from t2i_credit.interfaces import Prompt
from t2i_credit.prompts.records import COCO_NAMES

REPEATS = 7
SWIN = {"embed_dim": 96, "num_heads": [3, 6, 12, 24], "window_size": 7}
COCO = {
    "tag": "two_object",
    "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}],
    "prompt": "a photo of a cat and a dog",
}
SHAPES = {
    "tag": "colors",
    "include": [{"class": "circle", "color": "red", "count": 1}],
    "prompt": "a photo of a red circle",
}
Builder = Callable[[Path], Any]


def embedded(name: str, **params: Any) -> Builder:
    def build(folder: Path) -> Any:
        from t2i_credit.rewards import REWARDS

        return REWARDS[name](**params)

    return build


def clip_file(architecture: str, folder: Path) -> Path:
    """Random weights of an open_clip architecture, half precision, as a checkpoint with a `state_dict`."""
    import open_clip

    path = folder / f"{architecture}.pt"
    model = open_clip.create_model(architecture).half()
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def clip(folder: Path) -> Any:
    from t2i_credit.rewards import REWARDS

    return REWARDS["clip"](model="ViT-L-14", pretrained=str(clip_file("ViT-L-14", folder)))


def hpsv2(folder: Path) -> Any:
    from t2i_credit.rewards import REWARDS

    return REWARDS["hpsv2"](weights=str(clip_file("ViT-H-14", folder)))


def mask2former(folder: Path) -> Any:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = SwinConfig(**SWIN, depths=[2, 2, 18, 2], image_size=384, out_features=stages)
    config = Mask2FormerConfig(backbone_config=swin, num_labels=len(COCO_NAMES))
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    size = {"height": 384, "width": 384}
    Mask2FormerImageProcessor(size=size, size_divisor=32).save_pretrained(folder)
    return detector("mask2former", folder)


def owlv2(folder: Path) -> Any:
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    tiny.write_owlv2(folder)
    tokenizer = Owlv2Processor.from_pretrained(folder).tokenizer
    config = Owlv2Config(vision_config={"image_size": 960})
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": 960, "width": 960})
    Owlv2Processor(images, tokenizer).save_pretrained(folder)
    return detector("owlv2", folder)


def grounding_dino(folder: Path) -> Any:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    tiny.write_grounding_dino(folder)
    tokenizer = GroundingDinoProcessor.from_pretrained(folder).tokenizer
    stages = ["stage2", "stage3", "stage4"]
    swin = SwinConfig(**SWIN, depths=[2, 2, 6, 2], out_features=stages)
    GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin)).save_pretrained(
        folder
    )
    GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer).save_pretrained(folder)
    return detector("grounding_dino", folder)


def detector(name: str, folder: Path) -> Any:
    from t2i_credit.rewards import REWARDS

    return REWARDS["geneval"](detector=name, model=str(folder), batch_size=2)


# name: (builder, images of a batch, their side in pixels, prompt)
REWARDS_MEASURED: dict[str, tuple[Builder, int, int, dict[str, Any]]] = {
    "geneval, shapes": (embedded("geneval"), 256, 48, SHAPES),
    "clip, embedded": (embedded("clip"), 256, 48, SHAPES),
    "aesthetic, embedded": (embedded("aesthetic"), 256, 48, SHAPES),
    "clip, ViT-L-14": (clip, 8, 384, COCO),
    "hpsv2, ViT-H-14": (hpsv2, 4, 384, COCO),
    "geneval, mask2former (Swin-S)": (mask2former, 2, 384, COCO),
    "geneval, owlv2 (base, patch 16)": (owlv2, 2, 384, COCO),
    "geneval, grounding_dino (Swin-T)": (grounding_dino, 2, 384, COCO),
}


def measured(names: list[str]) -> Iterator[dict[str, Any]]:
    """One row per reward: images a second, median of REPEATS batches after a first one."""
    for name, (build, count, side, record) in REWARDS_MEASURED.items():
        if names and not any(wanted in name for wanted in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            reward = build(Path(folder) / "weights" if "geneval" in name else Path(folder))
            prompts = [Prompt(record["prompt"], spec=record)] * count
            seconds = []
            for _ in range(REPEATS + 1):
                images = torch.rand(count, 3, side, side)
                began = time.perf_counter()
                reward(images, prompts)
                seconds.append(time.perf_counter() - began)
        yield {"reward": name, "images a second": round(count / median(seconds[1:]), 2)}


if __name__ == "__main__":
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__}))
    for row in measured(sys.argv[1:]):
        print(json.dumps(row), flush=True)
