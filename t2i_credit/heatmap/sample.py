"""One sample in numbers and the pictures of its maps: credit, signed contrast, token advantages, each
with its colour bar. Lays out nothing (see sheets.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .draw import (
    ADVANTAGE,
    CELL,
    CONTRAST,
    QUIET,
    Bar,
    Cell,
    display,
    diverging,
    diverging_bar,
    format_number,
    overlay,
    plain_array,
    robust_limit,
    sequential,
    token_map,
    upsample,
    write,
)

if TYPE_CHECKING:
    from .draw import Array


@dataclass(frozen=True)
class SampleView:
    """Everything a panel shows of one sample.

    Attributes:
        image: the decoded image.
        grid: (H, W), rows and columns of tokens.
        credit: (H, W) or (T,), weight per token, mean 1.
        contrast: (H, W) or (T,), the raw evidence behind the credit, or None.
        signed_contrast: (H, W) or (T,), logprobs - negative_logprobs, or None if the negative
            branch never ran.
        token_advantages: (H, W) or (T,), advantage times credit.
        prompt: the positive prompt.
        negative: the negative prompt; None = the model's null prompt.
        reward, advantage: of the sample.
        gold: a golden reference and not a sample.
    """

    image: Image.Image
    grid: tuple[int, int]
    credit: Array
    contrast: Array | None
    signed_contrast: Array | None
    token_advantages: Array
    prompt: str
    negative: str | None
    reward: float
    advantage: float
    gold: bool = False


@dataclass(frozen=True)
class Scale:
    """Value ranges shared by pictures that are to be compared: credit 0..credit, the others
    -limit..limit.

    `clipped` names the maps with values beyond their limit."""

    credit: float
    contrast: float
    advantage: float
    clipped: frozenset[str] = frozenset()


def common_scale(samples: Sequence[SampleView]) -> Scale:
    """The scale on which the maps of these samples can be compared with each other."""
    credit = np.concatenate([plain_array(s.credit).ravel() for s in samples])
    advantages = np.concatenate([plain_array(s.token_advantages).ravel() for s in samples])
    contrasts = [
        plain_array(s.signed_contrast).ravel() for s in samples if s.signed_contrast is not None
    ]
    contrast = np.concatenate(contrasts) if contrasts else np.zeros(1, np.float32)
    limits = robust_limit(contrast), robust_limit(advantages)
    beyond = {
        "contrast": np.abs(contrast).max() > limits[0],
        "advantage": np.abs(advantages).max() > limits[1],
    }
    clipped = frozenset(name for name, is_beyond in beyond.items() if is_beyond)
    return Scale(max(float(credit.max()), 2.0), *limits, clipped)


def credit_overlay(
    sample: SampleView, limit: float, *, smooth: bool = True, longest: int = CELL
) -> Image.Image:
    """The image in pale grey under its token advantages: blue where the update makes tokens
    likelier, red where less likely. Grey, because a red circle must not look like a red verdict."""
    image = display(sample.image, longest)
    advantages = upsample(map_of(sample.token_advantages, sample.grid), image.size[::-1], smooth)
    strength = np.abs(advantages) / limit if limit > 0 else np.zeros_like(advantages)
    grey = image.convert("L").point([round(120 + level * 135 / 255) for level in range(256)])
    return overlay(grey, diverging(advantages, limit), 0.8 * np.clip(strength, 0, 1) ** 0.6)


def credit_map(sample: SampleView, scale: Scale, picture: Image.Image) -> Image.Image:
    """The credit at the size of `picture`."""
    return token_map(sequential(map_of(sample.credit, sample.grid), 0, scale.credit), picture)


def contrast_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The signed contrast at the size of `picture`, or a blank if the negative branch never ran."""
    title, subtitle = "Signed contrast", "log p(prompt) \N{MINUS SIGN} log p(negative)"
    if sample.signed_contrast is None:
        blank = Image.new("RGB", picture.size, "#f1efea")
        place = (picture.width // 2, picture.height // 2)
        write(blank, place, "no negative branch", 13, QUIET, anchor="mm")
        return Cell(title, subtitle, blank)
    values = map_of(sample.signed_contrast, sample.grid)
    colours = diverging(values, scale.contrast, CONTRAST)
    ends = ("fits the negative", "fits the prompt")
    bar = diverging_bar(scale.contrast, CONTRAST, ends, "contrast" in scale.clipped)
    return Cell(title, subtitle, token_map(colours, picture), bar)


def credit_bar(scale: Scale) -> Bar:
    """The colour bar of credit maps."""
    colours = sequential(np.linspace(0, scale.credit, 256), 0, scale.credit)
    labels = ((0.0, "0"), (1 / scale.credit, "1"), (1.0, format_number(scale.credit)))
    return Bar(colours, labels, ("counts less", "counts more"))


def advantage_bar(scale: Scale) -> Bar:
    """The colour bar of token advantages."""
    ends = ("less likely", "more likely")
    return diverging_bar(scale.advantage, ADVANTAGE, ends, "advantage" in scale.clipped)


def map_of(values: Array, grid: tuple[int, int]) -> np.ndarray:
    """(H, W) or (T,) as (H, W) float32."""
    return plain_array(values).reshape(grid)
