"""Draws credit: panels, contact sheets, animations. Arrays in, PIL images
out; reads and writes no run (see files.py) and never changes what it is given.

Shapes: token maps (H, W) = (rows, columns), images (h, w). Our sizes are (height, width), PIL's
(width, height). Maps stand under the lines of their picture. Zero is neutral; blue, purple or green is for, red, orange or
pink is against; of a critic's values green is for and purple against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .draw import (
    GOLD,
    HAIRLINE,
    NARROWEST,
    PAPER,
    QUIET,
    Cell,
    display,
    draw_bar,
    draw_star,
    format_number,
    format_signed,
    paste_framed,
)
from .lettering import INK, one_line, wrap, write
from .sample import (
    SampleView,
    Scale,
    advantage_bar,
    advantage_cell,
    common_scale,
    contrast_cell,
    credit_cell,
    credit_overlay,
    map_cell,
    value_cell,
)

GAP, MARGIN, THUMB = 28, 44, 144  # pixels


def panel(sample: SampleView, scale: Scale | None = None) -> Image.Image:
    """One sample in one row: image, credit, signed contrast, token advantages, and as far as they are known what a critic saw and
    where the reward looked.

    Args:
        sample: what to draw.
        scale: `common_scale` of the sample's group; None = the sample's own.
    """
    scale = scale or common_scale([sample])
    picture = display(sample.image)
    cells = [
        Cell("Image", "what was drawn", picture),
        credit_cell(sample, scale, picture),
        contrast_cell(sample, scale, picture),
        advantage_cell(sample, scale, picture),
    ]
    if changed := value_cell(sample, scale, picture):
        cells.append(changed)
    if looked := map_cell(sample, scale, picture):
        cells.append(looked)
    width = _row_width(cells)
    room = width - 2 * MARGIN - (330 if sample.gold else 250)  # of the texts, beside the numbers
    lines = wrap(sample.prompt, 26, True, room, 3)
    head = MARGIN + 36 * len(lines) + 46
    canvas = Image.new("RGB", (width, head + 54 + picture.height + 74 + MARGIN - 16), PAPER)
    _header(canvas, sample, lines, room)
    _draw_row(canvas, cells, head)
    return canvas


def contact_sheet(
    groups: Sequence[Sequence[SampleView]], *, columns: int = 8, title: str = ""
) -> Image.Image:
    """All kept samples of a step: a block per prompt, the best reward first, each image over its
    token advantages.

    Args:
        groups: the samples of each prompt; a group shares one colour scale, drawn beside its
            prompt.
        columns: images per row.
        title: one line above everything.
    """
    groups = [sorted(group, key=_worse) for group in groups if group]
    assert groups, "a contact sheet needs at least one sample"
    limits = [common_scale(group).advantage for group in groups]
    pictures = [
        [_thumbnail(s, limit) for s in group] for group, limit in zip(groups, limits, strict=True)
    ]
    cell_width = max(p.width for row in pictures for p in row)
    columns = min(columns, max(len(group) for group in groups))
    width = 2 * MARGIN + max(columns * (cell_width + 16) - 16, 640)
    top = MARGIN + (46 if title else 0)
    heights = [
        66 + math.ceil(len(row) / columns) * (max(p.height for p in row) + 48) + 22
        for row in pictures
    ]
    canvas = Image.new("RGB", (width, top + sum(heights) + MARGIN - 34), PAPER)
    if title:
        write(canvas, (MARGIN, MARGIN), title, 22, bold=True)
    for group, row, height in zip(groups, pictures, heights, strict=True):
        _group_header(canvas, group, top, width)
        line = max(p.height for p in row) + 48
        for place, (sample, picture) in enumerate(zip(group, row, strict=True)):
            x = MARGIN + place % columns * (cell_width + 16)
            y = top + 66 + place // columns * line
            paste_framed(canvas, picture, x, y)
            _caption(canvas, sample, x, y + picture.height + 10, picture.width)
        top += height
    return canvas


def credit_animation(
    frames: Sequence[tuple[int, SampleView]], palettes: Mapping[str, str] | None = None
) -> list[Image.Image]:
    """One prompt's image and credit through training, with the reward so far, on one scale for all
    frames.

    Args:
        frames: (step, sample), ascending; images of one size.
        palettes: see `common_scale`.

    Returns:
        Frames of one size: `pictures[0].save("credit.gif", save_all=True,
            append_images=pictures[1:], loop=0)`.
    """
    scale = common_scale([sample for _, sample in frames], palettes)
    return [_animation_frame(frames, place, scale) for place in range(len(frames))]


def _animation_frame(
    frames: Sequence[tuple[int, SampleView]], place: int, scale: Scale
) -> Image.Image:
    step, sample = frames[place]
    picture = display(sample.image)
    cells = [
        Cell("Image", _numbered(sample, f"reward {format_number(sample.reward)}"), picture),
        credit_cell(sample, scale, picture),
        advantage_cell(sample, scale, picture),
    ]
    width = _row_width(cells)
    lines = wrap(frames[0][1].prompt, 24, True, width - 2 * MARGIN - 150, 2)
    head = MARGIN + 34 * len(lines) + 20
    bottom = head + 54 + picture.height + 80
    canvas = Image.new("RGB", (width, bottom + 64 + MARGIN), PAPER)
    for row, line in enumerate(lines):
        write(canvas, (MARGIN, MARGIN + 34 * row), line, 24, bold=True)
    write(canvas, (width - MARGIN, MARGIN + 2), f"step {step}", 22, QUIET, anchor="ra")
    _draw_row(canvas, cells, head)
    _reward_line(canvas, frames, place, (MARGIN, bottom, width - MARGIN, bottom + 64))
    return canvas


def _row_width(cells: Sequence[Cell]) -> int:
    """Of a picture with these cells in a row."""
    return 2 * MARGIN + _column(cells) * len(cells) - GAP


def _column(cells: Sequence[Cell]) -> int:
    return max(cells[0].picture.width, NARROWEST) + GAP


def _draw_row(canvas: Image.Image, cells: Sequence[Cell], y: int) -> None:
    column = _column(cells)
    for place, cell in enumerate(cells):
        cell.draw(canvas, MARGIN + place * column, y, column - GAP)


def _header(canvas: Image.Image, sample: SampleView, lines: Sequence[str], room: int) -> None:
    """Prompt, in lines, and negative on the left, at most `room` wide, reward and advantage on the right."""
    y = MARGIN - 6
    for row, line in enumerate(lines):
        write(canvas, (MARGIN, y + 36 * row), line, 26, bold=True)
    below = wrap(_numbered(sample, _negative(sample.negative)), 15, False, room, 1)
    write(canvas, (MARGIN, y + 36 * len(lines) + 4), below[0], 15, QUIET)
    right = canvas.width - MARGIN
    for title, value in (
        ("advantage", format_signed(sample.advantage)),
        ("reward", format_number(sample.reward)),
    ):
        write(canvas, (right, y), value, 26, bold=True, anchor="ra")
        write(canvas, (right, y + 38), title, 14, QUIET, anchor="ra")
        right -= 125
    if sample.gold:
        draw_star(canvas, right - 36, y + 17, 13)
        write(canvas, (right - 36, y + 38), "gold", 14, GOLD, anchor="ma")


def _numbered(sample: SampleView, text: str) -> str:
    """The text behind the sample's number."""
    return text if sample.number is None else f"sample {sample.number} \N{MIDDLE DOT} {text}"


def _group_header(canvas: Image.Image, group: Sequence[SampleView], y: int, width: int) -> None:
    ImageDraw.Draw(canvas).line([(MARGIN, y - 8), (width - MARGIN, y - 8)], HAIRLINE)
    sampled = [s.reward for s in group if not s.gold] or [s.reward for s in group]
    mean = sum(sampled) / len(sampled)
    room = width - 2 * MARGIN - 230
    prompt = wrap(group[0].prompt, 18, True, room, 1)[0]
    write(canvas, (MARGIN, y + 4), prompt, 18, bold=True)
    below = f"mean reward {format_number(mean)}   \N{MIDDLE DOT}   {_negative(group[0].negative)}"
    write(canvas, (MARGIN, y + 31), wrap(below, 13, False, room, 1)[0], 13, QUIET)
    bar = advantage_bar(common_scale(group))
    draw_bar(canvas, bar, width - MARGIN - 190, y + 4, 190)


def _caption(canvas: Image.Image, sample: SampleView, x: int, y: int, width: int) -> None:
    if sample.gold:
        draw_star(canvas, x + 8, y + 8, 8)
    write(canvas, (x + (22 if sample.gold else 0), y), format_number(sample.reward), 15, bold=True)
    write(
        canvas, (x + width, y + 1), f"adv {format_signed(sample.advantage)}", 13, QUIET, anchor="ra"
    )


def _worse(sample: SampleView) -> float:
    return math.inf if math.isnan(sample.reward) else -sample.reward


def _thumbnail(sample: SampleView, limit: float) -> Image.Image:
    """The image, and below it its token advantages."""
    pictures = display(sample.image, THUMB), credit_overlay(sample, limit, longest=THUMB)
    width, height = pictures[0].size
    both = Image.new("RGB", (width, 2 * height + 4), PAPER)
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (0, height + 4))
    return both


def _reward_line(
    canvas: Image.Image,
    frames: Sequence[tuple[int, SampleView]],
    place: int,
    box: tuple[int, int, int, int],
) -> None:
    """The reward against the step, drawn up to `place`; the rest of the way is a hairline."""
    left, top, right, bottom = box
    steps = [step for step, _ in frames]
    rewards = [float(np.nan_to_num(sample.reward)) for _, sample in frames]
    low, high = min(0.0, *rewards), max(1.0, *rewards)
    points = [
        (
            left + 70 + (right - left - 82) * (step - steps[0]) / max(steps[-1] - steps[0], 1),
            bottom - 6 - (bottom - top - 12) * (reward - low) / (high - low),
        )
        for step, reward in zip(steps, rewards, strict=True)
    ]
    write(canvas, (left, top + 22), "reward", 13, QUIET)
    scale = 4  # drawn large, for smooth edges
    fine = canvas.crop(box).resize((scale * (right - left), scale * (bottom - top)))
    pen = ImageDraw.Draw(fine)
    path = [(scale * (x - left), scale * (y - top)) for x, y in points]
    floor, end = scale * (bottom - top - 6), scale * (right - left - 12)
    pen.line([(path[0][0], floor), (end, floor)], HAIRLINE, scale)
    pen.line(path[: place + 1], INK, 2 * scale, joint="curve")
    x, y = path[place]
    pen.ellipse([x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale], INK)
    small = fine.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
    canvas.paste(small, (left, top))


def _negative(negative: str | None) -> str:
    return f"negative: {'«null prompt»' if negative is None else f'“{one_line(negative)}”'}"
