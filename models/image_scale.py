"""Between images in [0, 1] and the pixel scale that a model's image processor declares. Resizes nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError


class ImageScale:
    """`(images - mean) / std` per channel, and back; mean 0 and std 1 where the processor does not normalise."""

    def __init__(self, image_processor: Any) -> None:
        normalised = image_processor.do_normalize
        self.mean = image_processor.image_mean if normalised else 0.0
        self.std = image_processor.image_std if normalised else 1.0

    def to_pixels(self, images: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """(B, 3, h, w) in [0, 1] to the model's scale.

        Raises:
            ModelError: the images have another size.
        """
        if images.shape[1:] != (3, *size):
            raise ModelError(f"images of {tuple(images.shape[1:])}; this model takes {(3, *size)}")
        mean, std = (_per_channel(value, images) for value in (self.mean, self.std))
        return ((images.float() - mean) / std).to(dtype)

    def to_images(self, pixels: Tensor) -> Tensor:
        """The model's scale to (B, 3, h, w) float32 in [0, 1]."""
        mean, std = (_per_channel(value, pixels) for value in (self.mean, self.std))
        return (pixels.float() * std + mean).clamp(0, 1)


def _per_channel(value: Any, like: Tensor) -> Tensor:
    return torch.tensor(value, device=like.device).reshape(-1, 1, 1)
