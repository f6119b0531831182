"""Tiny random checkpoints in the layouts of the real reward models. Holds no test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

from t2i_credit.rollout.images import to_uint8

WIDTH = 24  # of the tiny embeddings
ARCHITECTURE = "tiny-clip"
_CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_open_clip(folder: Path) -> Any:
    """A random model of an architecture that open_clip knows as "tiny-clip" from now on; its config is in `folder`."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG), encoding="utf-8")
    open_clip.add_model_config(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return open_clip.create_model(ARCHITECTURE).eval()


def some_images(count: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Smooth images with a little grain, (count, 3, h, w) in [0, 1], whole levels of 255."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    images = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic")
    images = images + 0.1 * torch.randn(count, 3, h, w, generator=draw)
    return images.clamp(0, 1).mul(255).round() / 255


def as_pictures(images: Tensor) -> list[Image.Image]:
    """(B, 3, h, w) in [0, 1] as Pillow pictures."""
    return [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in to_uint8(images)]
