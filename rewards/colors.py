"""GenEval's colours: zero-shot CLIP on the masked crop of an object. Finds no objects.

As the official evaluator does it: what is not the object becomes grey, the picture is cut to the box, and the
embedding is compared with three sentences for each of ten colours. In float32, where the official one runs CLIP in
half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .clip_tower import open_clip_source
from .loading import OFFLINE, one_line_errors

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
BACKGROUND = "#999"
BATCH = 16  # crops per forward pass
WHO = "geneval, colours"  # in messages


def masked_crop(
    picture: NDArray[np.uint8], box: Sequence[float], mask: NDArray[np.bool_] | None
) -> Image.Image:
    """The object alone: grey outside its mask (if it has one), cut to its box.

    Args:
        picture: (h, w, 3).
        box: (x0, y0, x1, y1) in pixels; rounded, and at least one pixel wide and high.
        mask: (h, w), True = the object.
    """
    image = Image.fromarray(picture)
    if mask is not None:
        blank = Image.new("RGB", image.size, color=BACKGROUND)
        image = Image.composite(image, blank, Image.fromarray(mask))
    left, top, right, bottom = (round(side) for side in box)
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def sentences(name: str) -> list[Callable[[str], str]]:
    """The three templates for objects of a class, each from a colour to a sentence."""
    return [
        lambda color: f"a photo of a {color} {name}",
        lambda color: f"a photo of a {color}-colored {name}",
        lambda color: f"a photo of a {color} object",
    ]


class ColorClassifier:
    """Names the colour of crops.

    Attributes:
        model: a CLIP of open_clip.
        preprocess: picture to (3, s, s).
        tokenizer: texts to token ids.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: torch.device) -> None:
        self.model, self.preprocess, self.tokenizer = model, preprocess, tokenizer
        self.device = device
        self._heads: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, crops: Sequence[Image.Image], names: Sequence[str]) -> list[str]:
        """The colour of each crop, which shows an object of the class `names` says."""
        found: list[str] = []
        for first in range(0, len(crops), BATCH):
            pictures = [self.preprocess(crop) for crop in crops[first : first + BATCH]]
            features = self.model.encode_image(
                torch.stack(pictures).to(self.device), normalize=True
            )
            for feature, name in zip(features, names[first : first + BATCH], strict=True):
                found.append(COLORS[int((feature @ self._head(name)).argmax())])
        return found

    def _head(self, name: str) -> Tensor:
        """(D, colours): the mean of the normalised sentences about a class, normalised again."""
        if name not in self._heads:
            from open_clip import build_zero_shot_classifier

            self._heads[name] = build_zero_shot_classifier(
                self.model,
                self.tokenizer,
                COLORS,
                sentences(name),
                num_classes_per_batch=None,
                device=self.device,
            )
        return self._heads[name]


def load_color_classifier(
    model: str, pretrained: str | None, device: torch.device
) -> ColorClassifier:
    """GenEval's classifier over any CLIP of open_clip.

    Args:
        model: an architecture such as ViT-L-14, a hub id, or a folder.
        pretrained: a tag or a file, for an architecture; the others bring their own weights.

    Raises:
        ModelError: it cannot be loaded.
    """
    clip, preprocess, tokenizer = _load_clip(model, pretrained, device)
    return ColorClassifier(clip, preprocess, tokenizer, device)


def _load_clip(model: str, pretrained: str | None, device: torch.device) -> tuple[Any, Any, Any]:
    """A CLIP, its preprocessing and its tokenizer."""
    import open_clip

    tag = pretrained if model in open_clip.list_models() else None
    name, weights = open_clip_source(model, tag, WHO)
    with one_line_errors(WHO, f"{name} with {weights}" if weights else name, OFFLINE):
        clip, preprocess = open_clip.create_model_from_pretrained(
            name, weights, device=device, force_quick_gelu=needs_quick_gelu(name, weights)
        )
        tokenizer = open_clip.get_tokenizer(name)
    return clip.eval(), preprocess, tokenizer


def needs_quick_gelu(model: str, pretrained: str | None) -> bool:
    """Whether the weights of this tag were trained with another activation than the architecture's own.

    open_clip only warns of that, and the embeddings would be others: ViT-L-14 and openai are such a pair.
    """
    from open_clip import get_pretrained_cfg

    return bool(pretrained and get_pretrained_cfg(model, pretrained).get("quick_gelu", False))
