"""The likeliest codes that were not drawn, and what the picture would show with them. Samples nothing.

Shapes: B samples, T = H*W image tokens in raster order, V codes, K alternatives of each token.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Tokens from one swapped code to the next in the same picture: those within 2 of it are the sample's own
APART = 3


def likeliest_others(logprobs: Tensor, tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest codes but the taken one, in order: (B, V), (B,) to codes (B, K) and their log-probabilities (B, K).

    K is `count`, or V - 1 if that is less.
    """
    others = logprobs.scatter(1, tokens[:, None], -math.inf)
    found = others.topk(min(count, logprobs.shape[1] - 1), 1)
    return found.indices, found.values


@torch.no_grad()
def swapped_pictures(
    model: Any, tokens: Tensor, codes: Tensor, *, most: int, batch_size: int | None = None
) -> Tensor:
    """What each token would show with another code in its place.

    A picture is decoded with every third token of every third row swapped, and only their own patches are kept: 9 * K
    pictures of a sample in place of T * K, and around each patch lie the sample's own tokens.

    Args:
        model: an ImageTokenModel; only its `decode` is used.
        tokens: (B, T) of the samples.
        codes: (B, T, K); below 0 = none: the sample's own.
        most: pixels of a patch's side at most; larger ones are made smaller.
        batch_size: most pictures decoded together; None = all.

    Returns:
        (B, 3, K*H*S, W*S) in [0, 1], on the CPU: K pictures below one another, each of H x W patches of S x S pixels.
    """
    height, width = model.grid
    place = torch.arange(height * width, device=tokens.device)
    turn = (place // width % APART) * APART + place % width % APART  # (T,)
    parts = []
    for own, others in zip(
        tokens.split(batch_size or len(tokens)), codes.split(batch_size or len(tokens)), strict=True
    ):
        shown = [
            _one_swapped(model, own, torch.where(one < 0, own, one), turn, most)
            for one in others.unbind(2)
        ]
        parts.append(torch.cat(shown, 2))
    return torch.cat(parts)


def _one_swapped(model: Any, own: Tensor, other: Tensor, turn: Tensor, most: int) -> Tensor:
    """`swapped_pictures` of one alternative (b, T) of each token: (b, 3, H*S, W*S)."""
    height, width = model.grid
    found = None
    for number in turn.unique().tolist():
        decoded = model.decode(torch.where(turn == number, other, own)).float()
        if found is None:
            found = decoded.clone()
            where = _nearest(turn, (height, width), decoded.shape[-2:])
        else:
            found = torch.where(where == number, decoded, found)
    assert found is not None, turn
    side = max(1, min(most, found.shape[-2] // height, found.shape[-1] // width))
    size = (height * side, width * side)
    if found.shape[-2:] != size:
        found = functional.adaptive_avg_pool2d(found, size)
    return found.clamp(0, 1).cpu()


def _nearest(values: Tensor, grid: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Values (T,) of tokens as pixels (h, w)."""
    rows, columns = (
        torch.arange(pixels, device=values.device) * tokens // pixels
        for tokens, pixels in zip(grid, size, strict=True)
    )
    return values.unflatten(0, grid)[rows][:, columns]
