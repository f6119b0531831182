"""Mask2Former as GenEval uses it: instance segmentation with the 80 classes of COCO, under GenEval's names.

The official evaluator runs mmdet's weights of the same network (Swin-S) and binarises masks at the image's own size;
here they have the 384 x 384 points of transformers' post-processing, so boxes may differ by a pixel or two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from ..coco import COCO_NAMES
from ..errors import ModelError
from ..geneval import Detection
from ..pixels import to_uint8
from .detectors import FLOOR, Found, load_detector_files


class Mask2Former:
    """The detector; see `detectors.Detector`."""

    checkpoint = "facebook/mask2former-swin-small-coco-instance"
    classes: Collection[str] | None = COCO_NAMES
    colors: Collection[str] | None = None

    def __init__(self, name: str, device: torch.device, batch_size: int) -> None:
        self.model, self.processor = load_detector_files(
            name,
            model=Mask2FormerForUniversalSegmentation,
            processor=Mask2FormerImageProcessor,
            device=device,
            example=self.checkpoint,
        )
        if self.model.config.num_labels != len(COCO_NAMES):
            raise ModelError(
                f"{name}: has {self.model.config.num_labels} classes; expected are the {len(COCO_NAMES)} of "
                f"COCO's instances, as in {self.checkpoint} (not its panoptic sister)"
            )
        self.device, self.batch_size = device, batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        size = tuple(images.shape[2:])
        found: list[Found] = []
        for part in images.split(self.batch_size):
            inputs = self.processor(list(to_uint8(part)), return_tensors="pt").to(self.device)
            segmented = self.processor.post_process_instance_segmentation(
                self.model(**inputs),
                threshold=FLOOR,
                target_sizes=[size] * len(part),
                return_binary_maps=True,
            )
            found += [
                _named(image, set(wanted[len(found) + i])) for i, image in enumerate(segmented)
            ]
        return found


def _named(image: dict[str, Any], wanted: set[str]) -> Found:
    """The instances of one image whose class is wanted."""
    found: Found = {}
    for segment, mask in zip(image["segments_info"], image["segmentation"], strict=False):
        name = COCO_NAMES[segment["label_id"]]
        if name in wanted:
            left, top, right, bottom = masks_to_boxes(mask[None])[0].tolist()
            box = (left, top, right + 1, bottom + 1)  # the last row and column belong to the object
            detection = Detection(box, segment["score"], mask=mask.bool().cpu().numpy())
            found.setdefault(name, []).append(detection)
    return found
