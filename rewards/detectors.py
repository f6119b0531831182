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


class OfWorld:
    """The detector of an embedded world, which sees classes and colours at once. It runs on the CPU."""

    def __init__(self, name: str) -> None:
        from ..worlds.world import find_world

        self.world = find_world(name)
        self.classes: Collection[str] | None = self.world.grammar.names
        self.colors: Collection[str] | None = self.world.grammar.colors

    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        return self.world.detect(to_uint8(images), masks=True)


def shapes(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds the classical detector of coloured shapes."""
    return _of_world("shapes", model)


def things(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds the small network that finds the things of that world."""
    return _of_world("things", model)


def _of_world(name: str, model: str | None) -> Detector:
    if model is not None:
        raise ConfigError(
            f"geneval.model: {model!r}: the {name} detector takes no weights; leave out"
        )
    return OfWorld(name)


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
    "things": things,
    "mask2former": mask2former,
    "owlv2": owlv2,
    "grounding_dino": grounding_dino,
}
