"""Finds drawn things in any image: a small centre-point network, trained by worlds/pretrain/judge.py. Knows no scene and no prompt.

Every cell of CELL x CELL pixels says whether an object's centre lies in it, which class and colour it has and where
its box ends; every pixel says whether it belongs to an object. One object is found in 3 x 3 cells at most.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ModelError
from ...geneval import Detection
from ...models.files import load_tensors
from .drawings import CLASSES, COLORS
from .scene import SIZE

WEIGHTS = Path(__file__).parent / "judge" / "detector.safetensors"
CELL = 8  # pixels
NAMES: tuple[str | None, ...] = (*COLORS, None)  # None: the drawing's own, which none of COLORS is
LEAST = 0.05  # confidence; less sure places are nothing
# From half sure on, where whole things almost always are and broken ones seldom, a thing counts where GenEval counts.
_SURENESS = ((0.0, 0.3, 0.5, 1.0), (0.0, 0.3, 0.91, 1.0))
_FINE = 4  # pixels of a place at the finer of the two resolutions
_BATCH = 64


class _Block(nn.Module):
    """Two convolutions beside the input (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_conv(width, width), *_conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _conv(inner: int, outer: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.SiLU()


class Network(nn.Module):
    """Images (B, 3, SIZE, SIZE) in [0, 1] to logits and boxes; G = SIZE // CELL."""

    def __init__(self, fine: int = 48, coarse: int = 112) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3 * _FINE**2, fine), _Block(fine))
        self.body = nn.Sequential(*_conv(fine, coarse, 2), _Block(coarse), _Block(coarse))
        self.centre = nn.Conv2d(coarse, 1, 1)
        self.kind = nn.Conv2d(coarse, len(CLASSES), 1)
        self.color = nn.Conv2d(coarse, len(NAMES), 1)
        self.box = nn.Conv2d(coarse, 4, 1)
        self.coarse_mask = nn.Conv2d(coarse, 4 * _FINE**2, 1)
        self.fine_mask = nn.Conv2d(fine, _FINE**2, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """centre (B, G, G), kind (B, G, G, classes), color (B, G, G, colours), box (B, G, G, 4): left, top, right and
        bottom in cells from the cell's middle; mask (B, SIZE, SIZE)."""
        fine = self.stem(F.pixel_unshuffle(images * 2 - 1, _FINE))
        body = self.body(fine)
        mask = F.pixel_shuffle(self.coarse_mask(body), 2) + self.fine_mask(fine)
        places = {
            name: getattr(self, name)(body).permute(0, 2, 3, 1) for name in ("kind", "color", "box")
        }
        return {
            **places,
            "centre": self.centre(body)[:, 0],
            "mask": F.pixel_shuffle(mask, _FINE)[:, 0],
        }


@cache
def _network() -> Network:
    if not WEIGHTS.is_file():
        raise ModelError(f"{WEIGHTS}: missing; t2i-credit pretrain things --only judge makes it")
    network = Network()
    load_tensors(network, WEIGHTS)
    return network.eval()


def detect(
    images: NDArray, specs: object = None, *, masks: bool = False
) -> list[dict[str, list[Detection]]]:
    """Finds the objects of each image.

    Args:
        images: (N, h, w, 3), uint8 or floats in [0, 1]; of another size than SIZE they are resized.
        specs: what other detectors of an evaluation look for; this one always looks for everything.
        masks: whether detections carry their (h, w) mask.

    Returns:
        for each image {class: detections}, boxes in pixels, colours out of COLORS or None.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    return detect_with(_network(), images, masks=masks)


@torch.inference_mode()
def detect_with(
    network: Network, images: NDArray, *, masks: bool = False
) -> list[dict[str, list[Detection]]]:
    """`detect` with a network that is given."""
    found: list[dict[str, list[Detection]]] = []
    for start in range(0, len(images), _BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
        values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        found += _read(network, values.permute(0, 3, 1, 2), masks)
    return found


def _read(network: Network, images: Tensor, masks: bool) -> list[dict[str, list[Detection]]]:
    h, w = images.shape[-2:]
    if (h, w) != (SIZE, SIZE):
        images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    says = network(images)
    centre = says["centre"].sigmoid()
    peak = centre == F.max_pool2d(centre[:, None], 3, 1, 1)[:, 0]
    places = ((centre > LEAST) & peak).nonzero()
    found: list[dict[str, list[Detection]]] = [{} for _ in range(len(images))]
    at = tuple(places.T)
    sure, kinds = says["kind"][at].softmax(-1).max(-1)
    confidences = np.interp((centre[at] * sure).numpy(), *_SURENESS).tolist()
    colors = says["color"][at].argmax(-1).tolist()
    middles = (places[:, [2, 1]] + 0.5).repeat(1, 2)
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    boxes = ((middles + signs * says["box"][at]) * CELL).clamp(0, SIZE)
    boxes = boxes * torch.tensor([w / SIZE, h / SIZE] * 2)
    covered = None
    if masks:
        covered = F.interpolate(says["mask"][:, None], (h, w), mode="bilinear")[:, 0] > 0
    for n, (image, box) in enumerate(zip(places[:, 0].tolist(), boxes.tolist(), strict=True)):
        if confidences[n] <= LEAST:
            continue
        mask = None if covered is None else _inside(covered[image].numpy(), box)
        one = Detection(box, confidences[n], NAMES[colors[n]], mask)
        found[image].setdefault(CLASSES[int(kinds[n])], []).append(one)
    return found


def _inside(covered: NDArray[np.bool_], box: list[float]) -> NDArray[np.bool_]:
    """The covered pixels of a box, which is taken a pixel wider on every side."""
    mask = np.zeros_like(covered)
    x0, y0, x1, y1 = max(0, round(box[0]) - 1), max(0, round(box[1]) - 1), *box[2:]
    place = np.s_[y0 : round(y1) + 1, x0 : round(x1) + 1]
    mask[place] = covered[place]
    return mask


def classes() -> tuple[str, ...]:
    """The class names that `detect` knows."""
    return CLASSES
