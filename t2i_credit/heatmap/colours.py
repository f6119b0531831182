"""From numbers to colours: palettes, which value has which colour, where the colours end, what stands below a bar. One rule
for every picture and for the app's page, which gets these tables and looks its colours up. Draws nothing.

A palette has 257 colours. Signed maps have 0 in its middle, credit has it at its beginning. The scale is a square root: the
colour halfway to the end stands for a quarter of the limit, so that a few large values leave colours for the many small
ones. Credit that stays near its mean, 1, has an even scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array = np.ndarray | Tensor | Sequence[Any]

# matplotlib's names; 0 is nearly white
CREDIT, CONTRAST, ADVANTAGE, VALUE, MAP = "BuGn", "PuOr", "RdBu", "PRGn", "PiYG"
# those to choose from, the usual one first; colour-blind readers can tell their colours apart
PALETTES = {
    "credit": (CREDIT, "viridis", "cividis", "magma"),
    "contrast": (CONTRAST, "BrBG", "RdBu", "dusk"),
    "advantage": (ADVANTAGE, "PuOr", "BrBG", "glow"),
    "value": (VALUE, "PuOr", "RdBu", "dusk"),
    "map": (MAP, "BrBG", "RdBu", "glow"),
}
USUAL = {kind: names[0] for kind, names in PALETTES.items()}
# diverging palettes of our own, dark and without colour in the middle: colours at these shares of the way to the ends
SHARES = (-1.0, -0.68, -0.42, -0.16, 0.0, 0.16, 0.42, 0.68, 1.0)
DARK = {
    "dusk": "ffd98a ffab24 bd7611 3d2a10 17181a 2b1d49 7444d6 a579ff dcc9ff",
    "glow": "ffb690 ff5f3f c92a33 40191f 17181a 112b49 1a6fd0 35a4fb 9fe2ff",
}
EVEN = 4.0  # times the mean: credit whose colours end below has an even scale
LIGHT = (
    140  # of 255, ITU-R BT.601: what is drawn on a lighter colour is dark, on a darker one light
)
DARK_INK, LIGHT_INK = (17, 17, 17), (255, 255, 255)


@cache
def table(palette: str) -> np.ndarray:
    """(257, 3) uint8: an odd number, so that a diverging palette has a middle."""
    ramp = np.linspace(0, 1, 257)
    if palette in DARK:
        stops = np.array([list(bytes.fromhex(colour)) for colour in DARK[palette].split()], float)
        shades = np.stack([np.interp(2 * ramp - 1, SHARES, c) for c in stops.T], axis=-1) / 255
    else:
        import matplotlib

        shades = matplotlib.colormaps[palette].resampled(257)(ramp)[:, :3]
    return np.rint(shades * 255).astype(np.uint8)


def edges(limit: float, signed: bool) -> np.ndarray:
    """(256,) float32, ascending: a value has the colour of as many places as there are edges at or below it.

    Args:
        limit: the magnitude of the last colour; 0 = every value has the colour of 0.
        signed: the palette's middle is 0; False = its beginning.
    """
    places = np.arange(256) + 0.5
    shares = (places - 128) / 128 if signed else places / 256
    sizes = np.abs(shares) ** _power(limit, signed) * limit if limit > 0 else np.inf
    return (np.sign(shares) * sizes).astype(np.float32)


def _power(limit: float, signed: bool) -> float:
    """Of a colour's share of the way to the last one, to get its share of the limit."""
    return 2.0 if signed or limit > EVEN else 1.0


def diverging(values: Array, limit: float, palette: str = ADVANTAGE) -> np.ndarray:
    """(..., 3) uint8: -limit..limit on a diverging palette, 0 exactly neutral; beyond the limit,
    its end colours."""
    return table(palette)[np.searchsorted(edges(limit, True), plain_array(values), "right")]


def sequential(values: Array, limit: float, palette: str = CREDIT) -> np.ndarray:
    """(..., 3) uint8: 0..limit from the beginning of a palette to its end."""
    return table(palette)[np.searchsorted(edges(limit, False), plain_array(values), "right")]


def robust_limit(values: Array, percent: float = 99.0) -> float:
    """Where the colours of these values end: at the largest magnitude; where that is more than twice
    the `percent`th percentile of the magnitudes above 0, at this percentile, so that single outliers do not wash
    out the rest. 0 for all-zero values."""
    magnitudes = np.abs(plain_array(values))
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return 0.0
    usual, most = np.percentile(magnitudes, [percent, 100], method="lower")
    return float(most if most <= 2 * usual else usual)


def bar_marks(limit: float, signed: bool, beyond: bool) -> tuple[tuple[float, str], ...]:
    """What stands below a colour bar, as (share of its width, text), the most important first.

    Args:
        limit: of the scale; above 1 where the map is not signed.
        signed: see `edges`. Where it is not, the mean 1 of the credit is marked.
        beyond: values lie beyond the limit.
    """
    least, most = (
        ("\N{LESS-THAN OR EQUAL TO} ", "\N{GREATER-THAN OR EQUAL TO} ") if beyond else ("", "")
    )
    if not signed:
        mean = limit ** (-1 / _power(limit, signed))
        return ((1.0, most + brief(limit)), (mean, "mean 1"), (0.0, "0"))
    if limit <= 0:
        return ((0.5, "0"),)
    quarter = brief(limit / 4)
    ends = ((1.0, f"{most}+{brief(limit)}"), (0.0, f"{least}\N{MINUS SIGN}{brief(limit)}"))
    return (*ends, (0.5, "0"), (0.75, f"+{quarter}"), (0.25, f"\N{MINUS SIGN}{quarter}"))


def brief(value: float) -> str:
    """A number from 0 on in six letters or less, as 0.25, 0.007, 1.50, 24.0, 150, 3e4."""
    if value == 0:
        return "0"
    if 0.0001 <= value < 0.01:
        return f"{value:.1g}"
    if 0.01 <= value < 9.995:
        return f"{value:.2f}"
    if 9.995 <= value < 99.95:
        return f"{value:.1f}"
    if 99.95 <= value < 9999.5:
        return f"{value:.0f}"
    digits, power = f"{value:.0e}".split("e")
    return f"{digits}e{int(power)}".replace("-", "\N{MINUS SIGN}")


def plain_array(values: Array) -> np.ndarray:
    """A float32 copy; what is not finite becomes 0, the neutral value."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.nan_to_num(np.array(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
