"""Image tokenizers: images in [0, 1] to codes and back, behind one contract that every generator shares. Trains nothing.

Shapes: B images of h x w pixels, a grid of H x W codes, T = H*W in raster order, V codes, C numbers of a code vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import ModelError

Grid = tuple[int, int]


class ImageScale:
    """`(images - mean) / std`, and back.

    Args:
        mean, std: one number, or one for each of the three channels.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def of(cls, image_processor: Any) -> ImageScale:
        """What a transformers image processor declares."""
        if not image_processor.do_normalize:
            return cls(0.0, 1.0)
        return cls(image_processor.image_mean, image_processor.image_std)

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


SIGNED = ImageScale(0.5, 0.5)  # pixels in [-1, 1]


def _per_channel(value: float | Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(value, device=like.device).reshape(-1, 1, 1)


class ImageTokenizer:
    """What a generator asks of its image tokenizer. The generator owns the networks, and freezes them.

    Attributes:
        module: the networks.
        scale: of its pixels.
        factor: pixels of a code's side.
        files: what it was read from, which a saved generator gets a copy of.
    """

    module: Any  # an nn.Module
    scale: ImageScale
    factor: int
    files: Sequence[Path] = ()

    @property
    def codebook(self) -> Tensor:
        """(V, C) code vectors."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Of its pixels."""
        return next(self.module.parameters()).dtype

    def size(self, grid: Grid) -> tuple[int, int]:
        """(h, w) in pixels of an image of a grid of codes."""
        return grid[0] * self.factor, grid[1] * self.factor

    @torch.no_grad()
    def encode(self, images: Tensor, grid: Grid) -> Tensor:
        """(B, 3, h, w) in [0, 1] to codes (B, T)."""
        return self.codes(self.scale.to_pixels(images, self.size(grid), self.dtype)).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T) codes to images (B, 3, h, w) in [0, 1]."""
        return self.decode_vectors(self.vectors(tokens), grid)

    def vectors(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to what the decoder takes, (B, T, C)."""
        return self.codebook[tokens]

    def decode_vectors(self, vectors: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) to images (B, 3, h, w) in [0, 1], differentiable."""
        latents = vectors.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()
        return self.scale.to_images(self.pixels(latents))

    # What a kind says

    def codes(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, h, w) in its own scale to codes (B, H, W)."""
        raise NotImplementedError

    def pixels(self, latents: Tensor) -> Tensor:
        """Vectors (B, C, H, W) to pixels (B, 3, h, w) in its own scale, not clamped."""
        raise NotImplementedError


class TokenizedImages:
    """The image side of a generator that has an `image_tokenizer` and a `grid`; see `ImageTokenModel`."""

    grid: Grid
    image_tokenizer: ImageTokenizer

    @property
    def codebook(self) -> Tensor:
        """(V, C) code vectors of the image tokenizer."""
        return self.image_tokenizer.codebook

    @property
    def image_size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.image_tokenizer.size(self.grid)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to codes (B, T)."""
        return self.image_tokenizer.encode(images, self.grid)

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to images (B, 3, h, w) in [0, 1]."""
        return self.image_tokenizer.decode(tokens, self.grid)

    def vectors(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to what the decoder takes, (B, T, C)."""
        return self.image_tokenizer.vectors(tokens)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """(B, T, C) to images (B, 3, h, w) in [0, 1], differentiable."""
        return self.image_tokenizer.decode_vectors(vectors, self.grid)


def nearest(latents: Tensor, codebook: Tensor, *, directions: bool = False) -> Tensor:
    """Latents (B, C, H, W) to the nearest of the codes (V, C): (B, H, W).

    In float32: in bfloat16 many codes of a large codebook are equally near.

    Args:
        directions: both are brought to length 1 first.
    """
    vectors = latents.permute(0, 2, 3, 1).float()
    codes = codebook.float()
    if directions:
        vectors, codes = F.normalize(vectors, dim=-1), F.normalize(codes, dim=-1)
    half = codes.square().sum(-1) / 2  # |x - e|^2 is least where x.e - |e|^2 / 2 is largest
    return torch.stack([(image @ codes.T - half).argmax(-1) for image in vectors])
