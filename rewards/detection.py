"""What detectors have in common: what they find, how their files are read. Looks at no image."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import ModelError, UserError, one_line
from ..geneval import Detection
from ..models.files import require_whole_files

Found = dict[str, list[Detection]]
# less confident objects are dropped at once, so no threshold of a verdict may lie below
FLOOR = 0.05


class Detector(Protocol):
    """Finds objects.

    Attributes:
        classes: the names that it knows; None = any (open vocabulary).
        colors: the colours that it names by itself; None = none, its detections say `color=None`.
    """

    classes: Collection[str] | None
    colors: Collection[str] | None

    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]: ...


def answered(found: Any, images: Tensor, who: str) -> list[Found]:
    """What a detector answered, as it should be: one {class: detections} per image, masks of the images' size.

    Raises:
        UserError: it is something else; one line that names the detector.
    """
    size = tuple(images.shape[-2:])
    if not isinstance(found, (list, tuple)) or len(found) != len(images):
        many = f"{len(found)} answers" if isinstance(found, (list, tuple)) else type(found).__name__
        raise UserError(
            f"{who}: returned {many} for {len(images)} images; one dict per image is needed"
        )
    for image in found:
        if not isinstance(image, dict):
            kind = type(image).__name__
            raise UserError(
                f"{who}: returned {kind} for an image; a dict of class to detections is needed"
            )
        for name, objects in image.items():
            for one in objects:
                if not isinstance(one, Detection):
                    kind = type(one).__name__
                    raise UserError(f"{who}: {name}: returned {kind}; geneval.Detection is needed")
                if not all(map(math.isfinite, (*one.box, one.confidence))):
                    raise UserError(f"{who}: {name}: a box or a confidence is not finite")
                if one.mask is not None and one.mask.shape != size:
                    raise UserError(
                        f"{who}: {name}: a mask of {one.mask.shape}; the images are {size}"
                    )
    return list(found)


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
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        if kind != model.config_class.model_type:
            raise ModelError(f"{name}: is a {kind} model; {expected}")
        require_whole_files(name)
        tools = processor.from_pretrained(name, trust_remote_code=False)
        loaded, report = model.from_pretrained(
            name, output_loading_info=True, trust_remote_code=False
        )
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
