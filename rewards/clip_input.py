"""Images as CLIP-like models take them: resized, cropped and normalised as Pillow and open_clip do it, on tensors.

Needs neither torchvision nor a detour over files, and stays on the device of the images. Runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..rollout.images import too_narrow

AT_ONCE = 1 << 24  # numbers of resized pictures held at a time
COLUMNS = 1024  # of a filter made at a time
_ONE = 2.0**22  # Pillow's fixed point: its filter weights are multiples of 1 / _ONE


@dataclass(frozen=True)
class ClipInput:
    """The preprocessing of one model.

    Attributes:
        size: (height, width) that the model takes.
        mean, std: per channel, of values in [0, 1].
        interpolation: of the resizing.
        resize_mode: "shortest" side to the size, then the centre; "longest" side, then padding; "squash" both sides.
        fill: the padding's level, 0..255.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill: int = 0

    @classmethod
    def of_open_clip(cls, preprocess: Mapping[str, Any]) -> ClipInput:
        """From `open_clip.get_model_preprocess_cfg(model)`."""
        bilinear = preprocess.get("interpolation") == "bilinear"
        return cls(
            size=_pair(preprocess["size"]),
            mean=tuple(preprocess["mean"]),
            std=tuple(preprocess["std"]),
            interpolation="bilinear" if bilinear else "bicubic",
            resize_mode=preprocess.get("resize_mode") or "shortest",
            fill=preprocess.get("fill_color") or 0,
        )

    def __call__(self, images: Tensor, *, rounded: bool = True) -> Tensor:
        """(B, 3, h, w) in [0, 1] to (B, 3, *size) float32, normalised.

        Values are rounded to 255 levels first: the model sees what a PNG file of the image would show it. Without
        `rounded` nothing is rounded, so that there is a gradient.

        Raises:
            UserError: the images are far too narrow.
        """
        h, w = images.shape[-2:]
        if why := too_narrow(h, w):
            raise UserError(f"images: {why}")
        size = self._resized(h, w)
        largest = 3 * max(h, size[0]) * max(w, size[1])
        pieces = []
        for some in images.split(max(1, AT_ONCE // largest)):
            levels = some.float().clamp(0, 1).mul(255)
            if rounded:
                levels = resize(levels.round(), size, self.interpolation)
            elif size != (h, w):
                levels = F.interpolate(
                    levels, size, mode=self.interpolation, antialias=True, align_corners=False
                ).clamp(0, 255)
            pieces.append(crop_or_pad(levels, self.size, self.fill))
        values = torch.cat(pieces) / 255
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=values.device).view(shape)
        std = torch.tensor(self.std, device=values.device).view(shape)
        return (values - mean) / std

    def _resized(self, h: int, w: int) -> tuple[int, int]:
        """(height, width) between resizing and cropping; each mode rounds as open_clip's transform does."""
        height, width = self.size
        if self.resize_mode == "squash":
            return self.size
        if self.resize_mode == "shortest" and height == width:
            return (height, int(height * w / h)) if h <= w else (int(height * h / w), height)
        either = max if self.resize_mode == "longest" else min
        ratio = either(h / height, w / width)
        return round(h / ratio), round(w / ratio)


def resize(
    levels: Tensor, size: tuple[int, int], interpolation: Literal["bicubic", "bilinear"]
) -> Tensor:
    """Resizes as Pillow resizes 8-bit images, to the bit: along rows, rounded, then along columns, rounded.

    The rounding between the two is no detail: on noisy images it changes values by up to 0.09 of the range.

    Args:
        levels: (..., h, w), whole numbers 0..255.
        size: (height, width).

    Returns:
        (..., height, width) float32, whole numbers 0..255.
    """
    h, w = levels.shape[-2:]
    if (h, w) == size:
        return levels.float()
    exact = levels.cpu() if levels.device.type == "mps" else levels  # which has no float64
    exact = exact.double()
    if w != size[1]:
        exact = _filtered(exact, size[1], interpolation)
    if h != size[0]:
        exact = _filtered(exact.mT, size[0], interpolation).mT
    return exact.float().to(levels.device)


def _filtered(levels: Tensor, length: int, interpolation: str) -> Tensor:
    """(..., n) to (..., length) in Pillow's fixed-point arithmetic; whole numbers in float64 are exact."""
    n = levels.shape[-1]
    parts = []
    for first in range(0, n, COLUMNS):  # the filter is what becomes of single pixels
        count = min(COLUMNS, n - first)
        single = torch.zeros(n, count, dtype=torch.float64, device=levels.device)
        single[first : first + count].fill_diagonal_(1)
        parts.append(
            F.interpolate(
                single[None, None],
                size=(length, count),
                mode=interpolation,
                antialias=True,
                align_corners=False,
            )[0, 0]
        )
    sums = levels @ (torch.cat(parts, dim=1) * _ONE).round().mT
    return ((sums + _ONE / 2) / _ONE).floor().clamp(0, 255)


def crop_or_pad(levels: Tensor, size: tuple[int, int], fill: float = 0) -> Tensor:
    """The centre (..., *size) of (..., h, w); where the image is smaller, `fill` around it."""
    (h, w), (height, width) = levels.shape[-2:], size
    if h < height or w < width:
        above, left = max(0, height - h) // 2, max(0, width - w) // 2
        below, right = max(0, height - h) - above, max(0, width - w) - left
        levels = F.pad(levels, (left, right, above, below), value=fill)
        h, w = levels.shape[-2:]
    top, left = round((h - height) / 2), round((w - width) / 2)
    return levels[..., top : top + height, left : left + width]


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])
