"""What a picture's ground would show in place of its figure. Looks at codes alone.

Shapes: B samples, T = H*W image tokens in raster order, V codes of C numbers each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def ground_codes(tokens: Tensor, codebook: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, T) codes: those of ground as they are, every other token the code of the ground token nearest to it.

    Ground are the tokens, half of them or more, that look most like the picture's mean look: most of a picture is ground, so its
    mean look is nearly the ground's.

    Args:
        tokens: (B, T).
        codebook: (V, C).
        grid: (H, W).
    """
    unit = F.normalize(codebook.float(), dim=-1)[tokens]  # (B, T, C)
    mean = F.normalize(unit.mean(1, keepdim=True), dim=-1)
    likeness = (unit * mean).sum(-1)  # (B, T)
    ground = likeness >= likeness.median(1, keepdim=True).values
    rows, columns = (torch.arange(n, device=tokens.device, dtype=torch.float32) for n in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)  # (T, 2)
    distance = (places[:, None] - places).square().sum(-1)  # (T, T)
    # of several equally near ones the most ground-like
    cost = torch.where(ground, -likeness / 1000, torch.inf)
    nearest = torch.stack([(distance + row).argmin(1) for row in cost])  # (B, T)
    return torch.where(ground, tokens, tokens.gather(1, nearest))
