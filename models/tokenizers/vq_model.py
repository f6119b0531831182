"""diffusers' `VQModel` as image tokenizer. Shapes as in base.py."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import VQModel
from torch import Tensor
from torch.nn import functional as F

from ...errors import ModelError
from ..bounds import named_errors, read_object, require_sizes
from ..files import load_tensors, require_files, require_tensors
from .base import SIGNED, ImageScale, ImageTokenizer


class VQModelTokenizer(ImageTokenizer):
    """A `VQModel`.

    Args:
        vq: the networks.
        patch: pixels per side that it takes as channels (space to depth).
        scale: of its pixels.
    """

    def __init__(self, vq: VQModel, *, patch: int = 1, scale: ImageScale = SIGNED) -> None:
        self.module, self.patch, self.scale = vq, patch, scale
        self.factor = patch * 2 ** (len(vq.config.block_out_channels) - 1)

    @property
    def codebook(self) -> Tensor:
        return self.module.quantize.embedding.weight

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    def codes(self, pixels: Tensor) -> Tensor:
        latents = self.module.encode(F.pixel_unshuffle(pixels, self.patch)).latents
        codes = self.module.quantize(latents)[2][2]
        return codes.reshape(len(pixels), *latents.shape[2:])

    def pixels(self, latents: Tensor) -> Tensor:
        drawn = self.module.decode(latents, force_not_quantize=True).sample
        return F.pixel_shuffle(drawn, self.patch)


def read_vq_model(folder: Path, *, patch: int) -> VQModelTokenizer:
    """A `VQModel` that diffusers saved, with its numbers between [-1, 1].

    Raises:
        ModelError: a file is missing or damaged.
    """
    path, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
    require_files(folder, (path.name, weights.name))
    require_sizes(path)
    with named_errors(path, "image tokenizer"), torch.device("meta"):
        outline = VQModel.from_config(read_object(path))
    require_tensors(outline, weights)
    vq = VQModel.from_config(read_object(path)).eval()
    load_tensors(vq, weights)
    if vq.config.in_channels != 3 * patch**2:
        raise ModelError(
            f"{path}: in_channels: {vq.config.in_channels} does not fit a patch of {patch}: {3 * patch**2} is needed"
        )
    found = VQModelTokenizer(vq, patch=patch)
    found.files = (path, weights)
    return found
