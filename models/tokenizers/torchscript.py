"""Image tokenizers that are published as two TorchScript files, such as NVIDIA's Cosmos tokenizers: pixels in [-1, 1] to codes, codes
to pixels. A TorchScript file is a program, which runs when it is used: name none that you do not trust.

Their codes are combinations of levels (finite scalar quantization, arXiv 2309.15505): a code's vector holds one number in
[-1, 1] for each, the first level counting fastest. Shapes as in base.py.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError, one_line
from ...files import regular_file
from ..bounds import named_errors
from .base import SIGNED, Grid, ImageTokenizer

ENCODER, DECODER = "encoder.jit", "decoder.jit"
MOST_CODES = 1 << 20
MOST_UNPACKED = 4  # times its size
TOLERANCE = 0.02  # of pixels in [0, 1]: bfloat16's


def level_vectors(levels: Sequence[int]) -> Tensor:
    """(V, C) the vectors of all combinations of so many levels."""
    sizes = torch.tensor(levels)
    steps = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)
    digits = torch.arange(math.prod(levels))[:, None] // steps % sizes
    half = sizes // 2
    return (digits - half) / half


class TorchScriptTokenizer(ImageTokenizer):
    """An encoder and a decoder in TorchScript.

    Args:
        module: has `encoder`, pixels to codes (or a tuple that begins with them), `decoder`, codes to pixels, and `vectors` (V, C).
        factor: pixels of a code's side.
        frames: whether they take videos, of which a picture is one frame: one more dimension behind the channels.
    """

    scale = SIGNED
    decode_vectors: Any = None  # such a decoder begins with codes, which have no gradient

    def __init__(self, module: Any, *, factor: int, frames: bool) -> None:
        self.module, self.factor, self.frames = module, factor, frames

    @property
    def codebook(self) -> Tensor:
        return self.module.vectors

    def codes(self, pixels: Tensor) -> Tensor:
        found = self.module.encoder(pixels[:, :, None] if self.frames else pixels)
        codes = found if isinstance(found, Tensor) else found[0]
        return codes[:, 0].long() if self.frames else codes.long()

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        codes = tokens.unflatten(1, grid)
        return self.scale.to_images(self._frame(self.module.decoder(self._framed(codes, 1))))

    @property
    def dtype(self) -> torch.dtype:
        weights = (tensor for tensor in self.module.parameters() if tensor.is_floating_point())
        return next(weights, torch.zeros(())).dtype

    def _framed(self, values: Tensor, dim: int) -> Tensor:
        return values.unsqueeze(dim) if self.frames else values

    def _frame(self, pixels: Tensor) -> Tensor:
        return pixels[:, :, 0] if self.frames else pixels


class CosmosTokenizer(TorchScriptTokenizer):
    """One whose decoder has the parts of Cosmos's, of which those behind the look-up are differentiable."""

    decode_vectors = ImageTokenizer.decode_vectors

    def pixels(self, latents: Tensor) -> Tensor:
        decoder = self.module.decoder
        framed = self._framed(latents.to(self.dtype), 2)
        return self._frame(decoder.decoder(decoder.post_quant_conv(framed)))


def read_torchscript(
    folder: Path, *, levels: Sequence[int], factor: int, frames: bool
) -> TorchScriptTokenizer:
    """The tokenizer of two TorchScript files.

    Args:
        folder: holds encoder.jit and decoder.jit.
        levels: of its codes.
        factor, frames: see `TorchScriptTokenizer`.

    Raises:
        ModelError: a file is missing or damaged, or what it gives for a small picture has another shape.
    """
    if math.prod(levels) > MOST_CODES:
        raise ModelError(
            f"{folder}: levels: {math.prod(levels):,} codes; at most {MOST_CODES:,} are allowed"
        )
    module = nn.Module()
    for name, file in (("encoder", ENCODER), ("decoder", DECODER)):
        path = folder / file
        if not path.is_file():
            raise ModelError(f"{path}: missing; a TorchScript tokenizer has one")
        _require_archive(path)
        with named_errors(path, "TorchScript file"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is old, and published
            setattr(module, name, torch.jit.load(path, map_location="cpu").eval())
    module.register_buffer("vectors", level_vectors(levels))
    whole = all(hasattr(module.decoder, part) for part in ("post_quant_conv", "decoder"))
    kind = CosmosTokenizer if whole else TorchScriptTokenizer
    found = kind(module, factor=factor, frames=frames)
    _require_shapes(found, folder)
    found.files = (folder / ENCODER, folder / DECODER)
    return found


def _require_archive(path: Path) -> None:
    """Raises ModelError for what is no TorchScript file, or is much larger than it looks."""
    try:
        with regular_file(path), zipfile.ZipFile(path) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
            names = packed.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"{path}: no TorchScript file: {one_line(error)}") from None
    if not any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"{path}: no TorchScript file: it holds no program")
    if size > MOST_UNPACKED * path.stat().st_size + (1 << 24):
        raise ModelError(f"{path}: unpacks to {size:,} bytes; a TorchScript file hardly shrinks")


@torch.no_grad()
def _require_shapes(found: TorchScriptTokenizer, folder: Path) -> None:
    """Tries both files on a picture of 2 x 3 codes, and whether the vectors of codes are those that the decoder looks up."""
    grid = (2, 3)
    size = found.size(grid)
    codes = torch.linspace(0, len(found.codebook) - 1, 6).long()[None]
    tried: list[tuple[str, Callable[[], Tensor], tuple[int, ...]]] = [
        (ENCODER, lambda: found.codes(torch.zeros(1, 3, *size, dtype=found.dtype)), (1, *grid)),
        (DECODER, lambda: found.decode(codes, grid), (1, 3, *size)),
    ]
    if isinstance(found, CosmosTokenizer):
        vectors = found.vectors(codes)
        tried.append((DECODER, lambda: found.decode_vectors(vectors, grid), (1, 3, *size)))
    drawn = []
    for file, run, wanted in tried:
        try:
            drawn.append(run())
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{folder / file}: fails on a picture of {size[0]} x {size[1]} pixels (levels, factor, frames?): "
                f"{one_line(error)[-200:]}"
            ) from None
        if (shape := tuple(drawn[-1].shape)) != wanted:
            raise ModelError(
                f"{folder / file}: gives {shape} for a picture of {size[0]} x {size[1]} pixels; {wanted} is needed (factor "
                f"{found.factor}, {'one frame' if found.frames else 'no frames'})"
            )
    if len(drawn) > 2 and float((drawn[1] - drawn[2]).abs().max()) > TOLERANCE:
        raise ModelError(f"{folder / DECODER}: levels: its codes have other vectors than these say")
