"""Images to codes and back with transformers' JanusVQVAE, the image tokenizer of Janus and LlamaGen. Trains nothing.

Its codes are compared by direction: decoding normalises code vectors, so encoding normalises latents and codes before
the nearest-code search (`JanusVQVAE.encode` searches without, and finds other codes).

Shapes: B images, T = H*W tokens in raster order, V codes, C code width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE


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


@torch.no_grad()
def decode(vq: JanusVQVAE, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Codes (B, T) to pixels (B, 3, h, w) in the tokenizer's own scale, not clamped."""
    vectors = unit_codebook(vq)[tokens].unflatten(1, grid)  # (B, H, W, C)
    return vq.decoder(vq.post_quant_conv(vectors.permute(0, 3, 1, 2).contiguous()))
