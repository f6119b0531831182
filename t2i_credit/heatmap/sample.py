"""One sample in numbers and the pictures of its maps: credit, signed contrast, token advantages, a critic's values, where the
reward looked, each with its colour bar. Lays out nothing (see sheets.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .colours import USUAL, diverging, plain_array, robust_limit, sequential
from .draw import QUIET, Bar, Cell, display, scale_bar, token_map
from .lettering import write

if TYPE_CHECKING:
    from .colours import Array


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
        number: of the sample in its step; None = it has none.
        value_change: (H, W) or (T,), what each token did to the reward that a critic expects; None without a critic.
        reward_map: (H, W) or (T,), where the reward looked, or None if no part of it says so.
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
    number: int | None = None
    value_change: Array | None = None
    reward_map: Array | None = None


@dataclass(frozen=True)
class Scale:
    """Where the colours of maps end that are to be compared: credit 0..credit, the others -limit..limit.

    `clipped` names the maps with values beyond their limit, `palettes` has the palette of each."""

    credit: float
    contrast: float
    advantage: float
    value: float = 0.0
    map: float = 0.0
    clipped: frozenset[str] = frozenset()
    palettes: Mapping[str, str] = field(default_factory=lambda: dict(USUAL))


def common_scale(samples: Sequence[SampleView], palettes: Mapping[str, str] | None = None) -> Scale:
    """The scale on which the maps of these samples can be compared with each other.

    Args:
        samples: of which.
        palettes: {kind of map: palette}; of a kind that is left out, the usual one.
    """

    def together(name: str) -> np.ndarray:
        """The maps of all samples that have one."""
        maps = [getattr(sample, name) for sample in samples]
        known = [plain_array(values).ravel() for values in maps if values is not None]
        return np.concatenate(known or [np.zeros(1, np.float32)])

    maps = {
        "credit": together("credit"),
        "contrast": together("signed_contrast"),
        "advantage": together("token_advantages"),
        "value": together("value_change"),
        "map": together("reward_map"),
    }
    limits = {name: robust_limit(values) for name, values in maps.items()}
    limits["credit"] = max(limits["credit"], 2.0)  # the mean, 1, stands well inside
    clipped = frozenset(n for n, values in maps.items() if np.abs(values).max() > limits[n])
    return Scale(**limits, clipped=clipped, palettes={**USUAL, **(palettes or {})})


def credit_overlay(
    sample: SampleView, limit: float, *, longest: int, palette: str = USUAL["advantage"]
) -> Image.Image:
    """The token advantages under the image as lines: blue (in the usual palette) where the update makes tokens likelier,
    red where less likely."""
    colours = diverging(map_of(sample.token_advantages, sample.grid), limit, palette)
    return token_map(colours, display(sample.image, longest), sample.image)


def credit_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The credit at the size of `picture`."""
    palette = scale.palettes["credit"]
    colours = sequential(map_of(sample.credit, sample.grid), scale.credit, palette)
    ends = ("counts less", "counts more")
    beyond = "credit" in scale.clipped
    bar = scale_bar(scale.credit, palette, ends, signed=False, beyond=beyond)
    drawn = token_map(colours, picture, sample.image)
    return Cell("Credit", "weight of each token, mean 1", drawn, bar)


def contrast_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The signed contrast at the size of `picture`, or a blank if the negative branch never ran."""
    title, subtitle = "Signed contrast", "log p(prompt) \N{MINUS SIGN} log p(negative)"
    if sample.signed_contrast is None:
        blank = Image.new("RGB", picture.size, "#f1efea")
        place = (picture.width // 2, picture.height // 2)
        write(blank, place, "no negative branch", 13, QUIET, anchor="mm")
        return Cell(title, subtitle, blank)
    ends = ("fits the negative", "fits the prompt")
    return _signed_cell(
        title, subtitle, sample.signed_contrast, "contrast", ends, sample, scale, picture
    )


def value_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell | None:
    """What the tokens did to the expected reward at the size of `picture`; None without a critic."""
    if sample.value_change is None:
        return None
    says, ends = "of the reward that a critic expects", ("went wrong", "went right")
    values = sample.value_change
    return _signed_cell("Value change", says, values, "value", ends, sample, scale, picture)


def map_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell | None:
    """Where the reward looked at the size of `picture`; None if no part of it says so."""
    if sample.reward_map is None:
        return None
    says, ends = "where the judge looked", ("lowered the reward", "raised it")
    return _signed_cell("Reward map", says, sample.reward_map, "map", ends, sample, scale, picture)


def _signed_cell(
    title: str,
    subtitle: str,
    values: Array,
    kind: str,
    ends: tuple[str, str],
    sample: SampleView,
    scale: Scale,
    picture: Image.Image,
) -> Cell:
    """Signed values of the tokens on the scale and the palette of their `kind`; `ends`: what stands below its bar."""
    limit, palette = getattr(scale, kind), scale.palettes[kind]
    colours = diverging(map_of(values, sample.grid), limit, palette)
    bar = scale_bar(limit, palette, ends, beyond=kind in scale.clipped)
    return Cell(title, subtitle, token_map(colours, picture, sample.image), bar)


def advantage_cell(sample: SampleView, scale: Scale, picture: Image.Image) -> Cell:
    """The token advantages at the size of `picture`."""
    subtitle = "advantage \N{MULTIPLICATION SIGN} credit"
    palette = scale.palettes["advantage"]
    drawn = credit_overlay(sample, scale.advantage, longest=max(picture.size), palette=palette)
    return Cell("Token advantages", subtitle, drawn, advantage_bar(scale))


def advantage_bar(scale: Scale) -> Bar:
    """The colour bar of token advantages."""
    ends = ("less likely", "more likely")
    palette = scale.palettes["advantage"]
    return scale_bar(scale.advantage, palette, ends, beyond="advantage" in scale.clipped)


def map_of(values: Array, grid: tuple[int, int]) -> np.ndarray:
    """(H, W) or (T,) as (H, W) float32."""
    return plain_array(values).reshape(grid)
