"""Who finds the objects for GenEval: the table of detectors. Judges no image.

A detector is built by a function that takes `model` (a hub id, a folder, or None), `device` and `batch_size`, and is
called with images (B, 3, h, w) in [0, 1] and, for each image, the class names that are wanted. It may look for no
others. It answers with one {class: detections} per image: boxes in pixels, confidences, and masks if it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from ..rollout.images import to_uint8
from .detection import Detector, Found


class Shapes:
    """The classical detector of the embedded world, which sees classes and colours at once."""

    def __init__(self) -> None:
        from ..worlds.shapes.detector import classes
        from ..worlds.shapes.scene import COLORS

        self.classes: Collection[str] | None = classes()
        self.colors: Collection[str] | None = tuple(COLORS)

    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        from ..worlds.shapes.detector import detect

        return detect(to_uint8(images), masks=True)


def shapes(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds `Shapes`; it has no weights, runs on the CPU and takes all images at once."""
    if model is not None:
        raise ConfigError(
            f"geneval.model: {model!r}: the shapes detector has no weights; leave out"
        )
    return Shapes()


def mask2former(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds GenEval's own kind of detector: Mask2Former, instance segmentation, 80 COCO classes."""
    from .hub_detectors import Mask2Former

    return Mask2Former(model or Mask2Former.checkpoint, device, batch_size)


def owlv2(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds OWLv2: any class name, boxes without masks."""
    from .hub_detectors import Owlv2

    return Owlv2(model or Owlv2.checkpoint, device, batch_size)


def grounding_dino(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds Grounding DINO: any class name, boxes without masks."""
    from .hub_detectors import GroundingDino

    return GroundingDino(model or GroundingDino.checkpoint, device, batch_size)


DETECTORS: dict[str, Callable[..., Detector]] = {
    "shapes": shapes,
    "mask2former": mask2former,
    "owlv2": owlv2,
    "grounding_dino": grounding_dino,
}
