"""Emu3's image tokenizer, transformers' `Emu3VQVAE`: a picture is a video of one frame. Shapes as in base.py."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

from ..files import hub_files, load_weights
from .base import SIGNED, ImageScale, ImageTokenizer


class Emu3Tokenizer(ImageTokenizer):
    """An `Emu3VQVAE`.

    Args:
        vq: the networks.
        scale: of its pixels.
    """

    def __init__(self, vq: Emu3VQVAE, scale: ImageScale = SIGNED) -> None:
        self.module, self.scale = vq, scale
        self.factor = vq.spatial_scale_factor

    @property
    def codebook(self) -> Tensor:
        return self.module.quantize.embedding.weight

    def codes(self, pixels: Tensor) -> Tensor:
        sizes = [tuple(pixels.shape[2:])] * len(pixels)
        return torch.stack(list(self.module.encode(pixels, sizes, return_dict=True).image_tokens))

    def pixels(self, latents: Tensor) -> Tensor:
        """What `Emu3VQVAE.decode` does after its look-up."""
        frame = latents[:, :, None]  # (B, C, 1, H, W)
        planes = self.module.post_quant_conv(frame).transpose(1, 2), frame.transpose(1, 2)
        found = self.module.decoder(*planes)  # frames come one behind the other
        return found.reshape(len(latents), -1, *found.shape[-3:])[:, 0]


def read_emu3(folder: Path) -> Emu3Tokenizer:
    """An `Emu3VQVAE` that transformers saved."""
    found = Emu3Tokenizer(load_weights(Emu3VQVAE, folder))
    found.files = hub_files(folder)
    return found
