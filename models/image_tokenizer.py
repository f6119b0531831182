"""Between images in [0, 1] and image tokens: pixel scales, and codes of transformers' JanusVQVAE. Trains nothing.

JanusVQVAE is the image tokenizer of Janus and LlamaGen. Its codes are compared by direction: decoding normalises code
vectors, so encoding normalises latents and codes before the nearest-code search (`JanusVQVAE.encode` searches without,
and finds other codes).

Shapes: B images, T = H*W tokens in raster order, V codes, C code width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

from ..errors import ModelError


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


def _per_channel(value: float | Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(value, device=like.device).reshape(-1, 1, 1)


def unit_codebook(vq: JanusVQVAE) -> Tensor:
    """(V, C) code vectors of length 1."""
    return F.normalize(vq.quantize.embedding.weight, dim=-1)


def image_size(vq: JanusVQVAE, grid: tuple[int, int]) -> tuple[int, int]:
    """(h, w) in pixels of an image of (H, W) tokens."""
    token = 2 ** (len(vq.config.channel_multiplier) - 1)
    return grid[0] * token, grid[1] * token


@torch.no_grad()
def encode(vq: JanusVQVAE, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) in the tokenizer's own scale to codes (B, T)."""
    latents = vq.quant_conv(vq.encoder(pixels))
    # float32: in bfloat16 many codes of a large codebook are equally near
    directions = F.normalize(latents.flatten(2).transpose(1, 2).float(), dim=-1)  # (B, T, C)
    codes = F.normalize(vq.quantize.embedding.weight.float(), dim=-1)
    return torch.stack([(image @ codes.T).argmax(-1) for image in directions])


def decode_vectors(vq: JanusVQVAE, vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """Vectors (B, T, C) of `unit_codebook` to pixels (B, 3, h, w) in the tokenizer's own scale, not clamped."""
    latents = vectors.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()  # (B, C, H, W)
    return vq.decoder(vq.post_quant_conv(latents))
