"""The drawings of the things: which icon shows which class, and each one in GenEval's colours. Draws no scene.

They are those of Noto Emoji (Apache License 2.0), rendered once into drawings.png by pack.py; the file names its origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PACKED = Path(__file__).parent / "drawings.png"
SIDE = 72  # pixels of a packed drawing
COLUMNS = 8
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (216, 30, 44),
    "orange": (252, 134, 12),
    "yellow": (250, 214, 36),
    "green": (44, 158, 66),
    "blue": (36, 92, 222),
    "purple": (130, 52, 176),
    "pink": (250, 140, 190),
    "brown": (118, 70, 36),
    "black": (44, 44, 50),
    "white": (240, 240, 242),
}


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes:
        name: its class, in GenEval's words.
        icon: its name in the icon set.
        own: the colour that the drawing has as it is, if it is one of COLORS; None = several, or another.
        faces: whether it looks to one side, so that its mirror image is another view of it.
    """

    name: str
    icon: str
    own: str | None = None
    faces: bool = False


DRAWINGS = (
    Drawing("bicycle", "bicycle", None, True),
    Drawing("car", "automobile", "red", True),
    Drawing("car", "sport-utility-vehicle", "blue", True),
    Drawing("motorcycle", "motorcycle", "red", True),
    Drawing("airplane", "airplane", None, True),
    Drawing("bus", "bus", None, True),
    Drawing("train", "train"),
    Drawing("train", "high-speed-train", None, True),
    Drawing("truck", "delivery-truck", None, True),
    Drawing("boat", "sailboat", None, True),
    Drawing("boat", "motor-boat", None, True),
    Drawing("traffic light", "vertical-traffic-light"),
    Drawing("bird", "bird", "blue", True),
    Drawing("bird", "duck", None, True),
    Drawing("cat", "cat", "orange", True),
    Drawing("cat", "cat-face", "orange"),
    Drawing("dog", "dog", None, True),
    Drawing("dog", "poodle", None, True),
    Drawing("horse", "horse", None, True),
    Drawing("sheep", "ewe", "white", True),
    Drawing("cow", "cow", None, True),
    Drawing("elephant", "elephant", None, True),
    Drawing("bear", "bear", "brown"),
    Drawing("zebra", "zebra", None, True),
    Drawing("giraffe", "giraffe", None, True),
    Drawing("backpack", "backpack", "red"),
    Drawing("umbrella", "umbrella"),
    Drawing("handbag", "handbag"),
    Drawing("handbag", "purse", "pink"),
    Drawing("suitcase", "luggage", "blue", True),
    Drawing("sports ball", "soccer-ball"),
    Drawing("sports ball", "basketball", "orange"),
    Drawing("kite", "kite"),
    Drawing("skateboard", "skateboard", None, True),
    Drawing("tennis racket", "tennis"),
    Drawing("cup", "hot-beverage", "white"),
    Drawing("bowl", "bowl-with-spoon", "blue"),
    Drawing("banana", "banana", "yellow", True),
    Drawing("apple", "red-apple", "red"),
    Drawing("sandwich", "sandwich"),
    Drawing("broccoli", "broccoli", "green"),
    Drawing("carrot", "carrot", "orange", True),
    Drawing("hot dog", "hot-dog", None, True),
    Drawing("pizza", "pizza"),
    Drawing("donut", "doughnut"),
    Drawing("cake", "birthday-cake"),
    Drawing("chair", "chair", None, True),
    Drawing("couch", "couch-and-lamp", "blue"),
    Drawing("potted plant", "potted-plant"),
    Drawing("bed", "bed", None, True),
    Drawing("toilet", "toilet", "white", True),
    Drawing("tv", "television"),
    Drawing("laptop", "laptop"),
    Drawing("computer mouse", "computer-mouse", "white"),
    Drawing("cell phone", "mobile-phone", "black"),
    Drawing("book", "closed-book", "red"),
    Drawing("book", "open-book"),
    Drawing("clock", "mantelpiece-clock"),
    Drawing("clock", "alarm-clock", "red"),
    Drawing("scissors", "scissors"),
    Drawing("teddy bear", "teddy-bear", "brown"),
    Drawing("toothbrush", "toothbrush", "orange", True),
)
CLASSES = tuple(dict.fromkeys(one.name for one in DRAWINGS))


@cache
def _plain() -> NDArray[np.float32]:
    """Every drawing as it is, (D, SIDE, SIDE, 4) in [0, 1], colours not multiplied by the coverage."""
    with Image.open(PACKED, formats=["PNG"]) as sheet:
        pixels = np.asarray(sheet.convert("RGBA"), dtype=np.float32) / np.float32(255)
    rows = len(pixels) // SIDE
    cells: NDArray[np.float32] = pixels.reshape(rows, SIDE, COLUMNS, SIDE, 4).swapaxes(1, 2)
    return cells.reshape(-1, SIDE, SIDE, 4)[: len(DRAWINGS)]


@cache
def sprite(index: int, color: str | None) -> NDArray[np.float32]:
    """A drawing in a colour; None = as it is, and so is a drawing in its own colour.

    Its light and dark places stay: the lightness of what is most of it becomes the colour, darker places its shade,
    lighter ones its tint.

    Returns:
        (SIDE, SIDE, 4) float32 in [0, 1], colours multiplied by the coverage.
    """
    plain = _plain()[index]
    rgb, alpha = plain[..., :3], plain[..., 3:]
    if color is not None and color != DRAWINGS[index].own:
        rgb = _tinted(rgb, alpha[..., 0], color)
    return np.concatenate([rgb * alpha, alpha], -1)


def _tinted(
    rgb: NDArray[np.float32], alpha: NDArray[np.float32], color: str
) -> NDArray[np.float32]:
    light = rgb @ np.asarray([0.30, 0.59, 0.11], dtype=np.float32)
    seen = light[alpha > 0.5]
    low, middle, high = np.quantile(seen, [0.02, 0.5, 0.98])
    middle = float(np.clip(middle, low + 0.1 * (high - low), low + 0.95 * (high - low)))
    dark = np.clip((middle - light) / max(middle - low, 0.25), 0, 1)[..., None]
    bright = np.clip((light - middle) / max(high - middle, 0.25), 0, 1)[..., None]
    pure = np.asarray(COLORS[color], dtype=np.float32) / np.float32(255)
    shade, tint = _ends(color, pure)
    return (pure + dark * (shade - pure) + bright * (tint - pure)).astype(np.float32)


def _ends(color: str, pure: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The darkest shade and the lightest tint of a colour."""
    toward_white = {"black": 0.30, "white": 1.0, "pink": 0.45, "brown": 0.28}.get(color, 0.5)
    kept = {"white": 0.50, "black": 0.25, "pink": 0.5, "yellow": 0.55}.get(color, 0.35)
    return kept * pure, pure + toward_white * (1 - pure)
