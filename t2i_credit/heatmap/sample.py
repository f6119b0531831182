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
)
from .lettering import write

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

    def together(name: str) -> np.ndarray:
        """The maps of all samples that have one."""
        maps = [getattr(sample, name) for sample in samples]
        known = [plain_array(values).ravel() for values in maps if values is not None]
        return np.concatenate(known or [np.zeros(1, np.float32)])

    maps = {"contrast": together("signed_contrast"), "advantage": together("token_advantages")}
    limits = {name: robust_limit(values) for name, values in maps.items()}
    clipped = frozenset(n for n, values in maps.items() if np.abs(values).max() > limits[n])
    return Scale(max(float(together("credit").max()), 2.0), **limits, clipped=clipped)


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


def credit_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The credit at the size of `picture`."""
    most = scale.credit
    colours = sequential(map_of(sample.credit, sample.grid), 0, most)
    labels = ((0.0, "0"), (1 / most, "1"), (1.0, format_number(most)))
    bar = Bar(
        sequential(np.linspace(0, most, 256), 0, most), labels, ("counts less", "counts more")
    )
    return Cell("Credit", "weight of each token, mean 1", token_map(colours, picture), bar)


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


def advantage_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The token advantages at the size of `picture`."""
    subtitle = "advantage \N{MULTIPLICATION SIGN} credit"
    colours = diverging(map_of(sample.token_advantages, sample.grid), scale.advantage)
    return Cell("Token advantages", subtitle, token_map(colours, picture), advantage_bar(scale))


def overlay_cell(sample: SampleView, scale: Scale) -> Cell:
    """The token advantages over the image."""
    drawn = credit_overlay(sample, scale.advantage)
    return Cell("On the image", "where the update pushes", drawn, advantage_bar(scale))


def advantage_bar(scale: Scale) -> Bar:
    """The colour bar of token advantages."""
    ends = ("less likely", "more likely")
    return diverging_bar(scale.advantage, ADVANTAGE, ends, "advantage" in scale.clipped)


def map_of(values: Array, grid: tuple[int, int]) -> np.ndarray:
    """(H, W) or (T,) as (H, W) float32."""
    return plain_array(values).reshape(grid)
