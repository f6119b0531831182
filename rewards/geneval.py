"""The GenEval verdict as a reward: 1 for an image that fulfils its record, 0 otherwise, or the share of its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..config.plugins import find_plugin
from ..config.values import Place
from ..errors import PromptError, UnknownClassError
from ..geneval import Detection, judge, keep, pixels_of, rated
from ..interfaces import Prompt
from ..prompts.records import validate_spec
from ..rollout.images import to_uint8
from .colors import COLORS, ColorClassifier, load_color_classifier, masked_crop
from .detection import Detector, Found, answered
from .detectors import DETECTORS, OfWorld
from .loading import to_device

Share = Annotated[float, Field(ge=0, le=1)]


class GenevalReward:
    """Range [0, 1]. Needs a `spec` with every prompt.

    Attributes:
        detector: who finds the objects.
        load_classifier: who names their colours, where the detector does not; called when first needed.
        partial: the share of passed checks instead of the strict verdict.
        judging: which objects count; see `geneval.keep`.
    """

    def __init__(
        self,
        detector: Detector,
        load_classifier: Callable[[], ColorClassifier],
        *,
        partial: bool,
        judging: Mapping[str, Any],
    ) -> None:
        self.detector, self.load_classifier = detector, load_classifier
        self.partial, self.judging = partial, judging
        self._classifier: ColorClassifier | None = None

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError if a prompt has no record or one that cannot be judged, or the colours' CLIP is missing."""
        classes = getattr(self.detector, "classes", None)
        named = getattr(self.detector, "colors", None)
        asked = False
        for prompt in prompts:
            where, record = f"prompt {prompt.text!r}", _record(prompt)
            try:
                validate_spec(record, classes=classes, where=where)
            except UnknownClassError as error:
                raise PromptError(f"{error}{self._other_detector()}") from None
            for color in [c["color"] for c in record["include"] if "color" in c]:
                asked = True
                if color not in (named or COLORS):
                    allowed = ", ".join(named or COLORS)
                    raise PromptError(f"{where}: unknown color {color!r} (allowed: {allowed})")
        if asked and named is None:
            self._color_classifier()

    def _other_detector(self) -> str:
        """What to do where a class is unknown."""
        if not isinstance(self.detector, OfWorld):
            return ""
        return (
            f"; the detector {self.detector.world.name} sees the embedded world alone, for other images take mask2former "
            "(reward.geneval.detector of a recipe, --detector of a command)"
        )

    @torch.no_grad()
    def find(self, images: Tensor, specs: Sequence[Mapping[str, Any]]) -> list[Found]:
        """What is seen on each image of the classes that its record names, with the colours that it asks for.

        Args:
            images: (B, 3, h, w) in [0, 1].
            specs: B GenEval records.
        """
        wanted = [_classes(spec) for spec in specs]
        name = getattr(self.detector, "__qualname__", type(self.detector).__qualname__)
        found = answered(self.detector(images, wanted), images, f"detector {name}")
        asked = [
            (image, name, detection)
            for image, spec in enumerate(specs)
            for name, detection in self._uncolored(found[image], spec)
        ]
        if not asked:
            return found
        pixels = to_uint8(images)
        crops = [masked_crop(pixels[image], d.box, d.mask) for image, _, d in asked]
        colors = self._color_classifier()(crops, [name for _, name, _ in asked])
        # a detector may list one object under several images or classes
        seen = {(i, name, id(d)): c for (i, name, d), c in zip(asked, colors, strict=True)}
        return [
            {
                name: [replace(d, color=seen.get((i, name, id(d)), d.color)) for d in objects]
                for name, objects in image.items()
            }
            for i, image in enumerate(found)
        ]

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        specs = [_record(prompt) for prompt in prompts]
        found = self.find(images, specs)
        verdicts = [judge(d, s, **self.judging) for d, s in zip(found, specs, strict=True)]
        values = [v.score if self.partial else float(v.correct) for v in verdicts]
        return torch.tensor(values, dtype=torch.float32)

    @torch.no_grad()
    def locate(self, images: Tensor, prompts: Sequence[Prompt], grid: tuple[int, int]) -> Tensor:
        """(B, T) in [-1, 1]: the share of a token's cell that right objects cover, minus that of wrong ones; see
        `geneval.rated`."""
        specs = [_record(prompt) for prompt in prompts]
        height, width = images.shape[-2:]
        pixels = torch.zeros(len(images), 1, height, width)
        for image, (found, spec) in enumerate(zip(self.find(images, specs), specs, strict=True)):
            marks = rated(found, spec, **self.judging)
            for one, right in sorted(
                marks, key=lambda mark: not mark[1]
            ):  # wrong ones over right ones
                covered = torch.from_numpy(pixels_of(one.box, one.mask, (height, width)))
                pixels[image, 0][covered] = 1.0 if right else -1.0
        return F.adaptive_avg_pool2d(pixels, grid).flatten(1)

    def _uncolored(self, found: Found, spec: Mapping[str, Any]) -> list[tuple[str, Detection]]:
        """The objects, with their class, whose colour the verdict will ask for and nobody has named."""
        kept = keep(found, spec["tag"], **self.judging)
        asked: list[tuple[str, Detection]] = []
        for clause in spec["include"]:
            if "color" in clause:
                objects = kept.get(clause["class"], [])[: clause["count"]]
                enough = len(objects) == clause["count"]
                asked += [(clause["class"], d) for d in objects if enough and d.color is None]
        return asked

    def _color_classifier(self) -> ColorClassifier:
        if self._classifier is None:
            self._classifier = self.load_classifier()
        return self._classifier


def _classes(spec: Mapping[str, Any]) -> list[str]:
    """The classes that a record names."""
    clauses = (*spec["include"], *spec.get("exclude", ()))
    return list(dict.fromkeys(clause["class"] for clause in clauses))


def _record(prompt: Prompt) -> dict[str, Any]:
    """The prompt's GenEval record, which it must have."""
    if prompt.spec is None:
        raise PromptError(
            f"prompt {prompt.text!r}: no spec; the geneval reward needs a GenEval record to judge by; others take any text, such as "
            "reward={clip: {model: embedded}}"
        )
    return dict(prompt.spec)


def geneval(
    *,
    detector: str = "shapes",
    model: Place | None = None,
    partial: bool = False,
    threshold: Share = 0.3,
    counting_threshold: Share = 0.9,
    max_objects: Annotated[int, Field(ge=1, le=10_000)] = 16,
    nms_threshold: Share | None = None,
    color_model: Place = "ViT-L-14",
    color_pretrained: Place = "openai",
    device: str | None = None,
    batch_size: Annotated[int, Field(ge=1)] = 16,
) -> GenevalReward:
    """Builds the reward.

    Args:
        detector: shapes, things, mask2former, owlv2, grounding_dino, or package.module:function (see `detectors`).
        model: its hub id or folder; null = its usual checkpoint.
        partial: the share of passed checks in [0, 1] instead of 0 or 1.
        threshold: an object counts above this confidence.
        counting_threshold: the same in the task counting.
        max_objects: of a class; the most confident ones count.
        nms_threshold: where two objects of a class overlap by more, the weaker one goes; null = off.
        color_model, color_pretrained: the CLIP that names colours, as open_clip calls it; not loaded if the detector
            names them itself, or if no prompt asks.
        device: null = a GPU if there is one.
        batch_size: images per forward pass of the detector.
    """
    where = to_device(device, "reward geneval")
    build = find_plugin(detector, DETECTORS, "geneval.detector")
    return GenevalReward(
        build(model=model, device=where, batch_size=batch_size),
        lambda: load_color_classifier(color_model, color_pretrained, where),
        partial=partial,
        judging={
            "threshold": threshold,
            "counting_threshold": counting_threshold,
            "max_objects": max_objects,
            "nms_threshold": nms_threshold,
        },
    )
