"""Detectors of the Hugging Face hub: Mask2Former as GenEval uses it, OWLv2 and Grounding DINO. No colours.

Mask2Former segments the 80 classes of COCO, under GenEval's names. The official evaluator runs mmdet's weights of the
same network (Swin-S) and binarises masks at the image's own size; here they have the 384 x 384 points of transformers'
post-processing, so boxes may differ by a pixel or two.

The other two look for whatever class names a prompt's record holds, and give no masks. Their confidences are not on the
scale of GenEval's thresholds (0.3, and 0.9 for counting), which were set for Mask2Former: choose `threshold` and
`counting_threshold` of the reward with them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, masks_to_boxes, remove_small_boxes
from transformers import (
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    Owlv2ForObjectDetection,
    Owlv2Processor,
)
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps
from transformers.models.owlv2.modeling_owlv2 import Owlv2ObjectDetectionOutput

from ..errors import ModelError
from ..geneval import Detection
from ..prompts.records import COCO_NAMES
from ..rollout.images import to_uint8
from .detection import FLOOR, Found, load_detector_files

OVERLAP = 0.5  # IoU from which two boxes of a class are one object: these models answer with many boxes for each


class _OpenVocabulary:
    """A checkpoint and its processor; any class, no colours."""

    checkpoint: str  # an example of one
    types: tuple[Any, Any]  # of the model and of its processor
    classes: Collection[str] | None = None
    colors: Collection[str] | None = None

    def __init__(self, name: str, device: torch.device, batch_size: int) -> None:
        model, processor = self.types
        self.model, self.processor = load_detector_files(
            name, model=model, processor=processor, device=device, example=self.checkpoint
        )
        self.device, self.batch_size = device, batch_size


class Owlv2(_OpenVocabulary):
    """One query "a photo of a {class}" per class; the classes of an image do not influence each other."""

    checkpoint = "google/owlv2-base-patch16-ensemble"
    types = (Owlv2ForObjectDetection, Owlv2Processor)

    @torch.no_grad()
    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        found: list[Found] = []
        for part in images.split(self.batch_size):
            names = [
                list(dict.fromkeys(row)) for row in wanted[len(found) : len(found) + len(part)]
            ]
            # Every image gets the queries of all: the processor's own padding would be a query like any other.
            every = sorted({name for row in names for name in row})
            inputs = self.processor(
                text=[[f"a photo of a {name}" for name in every]] * len(part),
                images=list(to_uint8(part)),
                return_tensors="pt",
            ).to(self.device)
            outputs = self.model(**inputs)
            for i, own in enumerate(names):
                columns = [every.index(name) for name in own]
                of_image = Owlv2ObjectDetectionOutput(
                    logits=outputs.logits[i : i + 1, :, columns],
                    pred_boxes=outputs.pred_boxes[i : i + 1],
                )
                (result,) = self.processor.post_process_grounded_object_detection(
                    of_image, threshold=FLOOR, target_sizes=[tuple(part.shape[2:])]
                )
                found.append(
                    _named(own, result["labels"], result["scores"], result["boxes"], part.shape[2:])
                )
        return found


class GroundingDino(_OpenVocabulary):
    """One text "cat. traffic light." per image; a box belongs to the class whose words it matches best.

    The library names a box by every word that it matches, which is a mixture where classes share words; here its
    confidence is the largest match among the words of one class.
    """

    checkpoint = "IDEA-Research/grounding-dino-tiny"
    types = (GroundingDinoForObjectDetection, GroundingDinoProcessor)

    @torch.no_grad()
    def __call__(self, images: Tensor, wanted: Sequence[Sequence[str]]) -> list[Found]:
        found: list[Found] = []
        height, width = images.shape[2:]
        scale = torch.tensor([width, height, width, height], device=self.device)
        for part in images.split(self.batch_size):
            names = [
                list(dict.fromkeys(row)) for row in wanted[len(found) : len(found) + len(part)]
            ]
            inputs = self.processor(
                text=[[name.replace(".", " ") for name in row] for row in names],
                images=list(to_uint8(part)),
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            outputs = self.model(**inputs)
            maps = build_label_maps(outputs.logits, inputs["input_ids"])  # (classes, 256) each
            for own, logits, boxes, words in zip(
                names, outputs.logits, outputs.pred_boxes, maps, strict=True
            ):
                matches = logits[:, None].masked_fill(words[None] == 0, float("-inf")).amax(-1)
                scores, labels = matches.sigmoid().max(1)  # (boxes) of (boxes, classes)
                centers, sizes = boxes[:, :2], boxes[:, 2:]
                corners = torch.cat([centers - sizes / 2, centers + sizes / 2], 1) * scale
                found.append(_named(own, labels, scores, corners, images.shape[2:]))
        return found


def _named(
    names: Sequence[str], labels: Tensor, scores: Tensor, boxes: Tensor, size: Sequence[int]
) -> Found:
    """The boxes of one image by class: inside the picture, at least a pixel wide, one for each object.

    Args:
        labels, scores, boxes: (N), (N), (N, 4) in pixels.
        size: (h, w).
    """
    height, width = size
    boxes = clip_boxes_to_image(boxes, (height, width))
    kept = remove_small_boxes(boxes, 1.0)
    kept = kept[scores[kept] > FLOOR]
    kept = kept[batched_nms(boxes[kept], scores[kept], labels[kept], OVERLAP)]
    found: Found = {}
    for label, score, box in zip(*(t[kept].tolist() for t in (labels, scores, boxes)), strict=True):
        found.setdefault(names[label], []).append(Detection(box, score))
    return found


class Mask2Former:
    """The detector; see `detection.Detector`."""

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
                _instances(image, set(wanted[len(found) + i])) for i, image in enumerate(segmented)
            ]
        return found


def _instances(image: dict[str, Any], wanted: set[str]) -> Found:
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
