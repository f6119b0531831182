"""Who finds the objects for GenEval: the table of detectors, and what they have in common. Judges no image.

A detector is built by a function that takes `model` (a hub id, a folder, or None), `device` and `batch_size`, and is
called with images (B, 3, h, w) in [0, 1] and, for each image, the class names that are wanted. It may look for no
others. It answers with one {class: detections} per image: boxes in pixels, confidences, and masks if it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config_messages import one_line
from ..errors import ConfigError, ModelError
from ..geneval import Detection
from ..pixels import to_uint8

Found = dict[str, list[Detection]]
FLOOR = (
    0.05  # less confident objects are dropped at once, so no threshold of a verdict may lie below
)


class Detector(Protocol):
    """Finds objects.

    Attributes:
        classes: the names that it knows; None = any (open vocabulary).
        colors: the colours that it names by itself; None = none, its detections say `color=None`.
    """

    classes: Collection[str] | None
    colors: Collection[str] | None

    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]: ...


class Shapes:
    """The classical detector of the embedded world, which sees classes and colours at once."""

    def __init__(self) -> None:
        from ..shapes.detector import classes
        from ..shapes.scene import COLORS

        self.classes: Collection[str] | None = classes()
        self.colors: Collection[str] | None = tuple(COLORS)

    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        from ..shapes.detector import detect

        return detect(to_uint8(images))


def shapes(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds `Shapes`; it has no weights, runs on the CPU and takes all images at once."""
    if model is not None:
        raise ConfigError(
            f"geneval.model: {model!r}: the shapes detector has no weights; leave out"
        )
    return Shapes()


def mask2former(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds GenEval's own kind of detector: Mask2Former, instance segmentation, 80 COCO classes."""
    from .mask2former import Mask2Former

    return Mask2Former(model or Mask2Former.checkpoint, device, batch_size)


def owlv2(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds OWLv2: any class name, boxes without masks."""
    from .open_vocabulary import Owlv2

    return Owlv2(model or Owlv2.checkpoint, device, batch_size)


def grounding_dino(*, model: str | None, device: torch.device, batch_size: int) -> Detector:
    """Builds Grounding DINO: any class name, boxes without masks."""
    from .open_vocabulary import GroundingDino

    return GroundingDino(model or GroundingDino.checkpoint, device, batch_size)


DETECTORS: dict[str, Callable[..., Detector]] = {
    "shapes": shapes,
    "mask2former": mask2former,
    "owlv2": owlv2,
    "grounding_dino": grounding_dino,
}


def load_detector_files(
    name: str, *, model: Any, processor: Any, device: torch.device, example: str
) -> tuple[Any, Any]:
    """A detector of transformers and its processor, complete and ready to run.

    Args:
        name: a hub id or a folder.
        model, processor: the classes of transformers.
        example: a hub id that would do, for messages.

    Raises:
        ModelError: it is missing, damaged, incomplete, or another kind of model.
    """
    from transformers import AutoConfig

    expected = (
        f"expected is a {model.__name__} checkpoint: a hub id such as {example}, or a folder with "
        "config.json, preprocessor_config.json, model.safetensors and the tokenizer's files, if it has one"
    )
    if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():
        raise ModelError(f"{name}: no such folder; {expected}")
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind != model.config_class.model_type:
            raise ModelError(f"{name}: is a {kind} model; {expected}")
        tools = processor.from_pretrained(name)
        loaded, report = model.from_pretrained(name, output_loading_info=True)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = one_line(error)
        raise ModelError(f"{name}: cannot be loaded ({reason[:160]}); {expected}") from error
    # transformers would go on with random values
    if absent := sorted(
        {key for key, _ in loaded.named_parameters()} & set(report["missing_keys"])
    ):
        raise ModelError(
            f"{name}: {len(absent)} tensors are missing, {absent[0]} first; {expected}"
        )
    return loaded.to(device).eval(), tools
