"""Images of one prompt as files, with a sheet that shows where the positive and the negative prompt disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..heatmap.colours import CONTRAST, diverging, robust_limit
from ..heatmap.draw import QUIET, display, draw_bar, paste_framed, scale_bar, token_map
from ..heatmap.lettering import wrap, write
from ..interfaces import Prompt, Rollout
from ..rollout.images import to_uint8
from ..rollout.sampling import sample_rollout
from ..run_folder.atomic import make_folder, write_json, write_png
from .models import load_model, usual_sampling
from .parts import unread_by, warn_of

CELL, GAP, MARGIN, COLUMNS = 192, 20, 36, 6


def sample_to_folder(
    model: str,
    prompt: str,
    negative: str | None,
    *,
    count: int,
    cfg_scale: float | None,
    temperature: float | None,
    seed: int,
    out: Path,
) -> list[Path]:
    """Samples `count` images of one prompt and writes them, samples.json, and sheet.png.

    Warns of what the model does not read of the prompts. The sheet has each image over its signed contrast log p(token | positive) - log p(token | negative), in nats.

    Raises:
        UserError: a setting out of range, no such model, or the folder cannot be written.
    """
    for name, text in (("prompt", prompt), ("--negative", negative or "")):
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # a byte that is no UTF-8
            raise UserError(f"{name}: {text!r:.80} holds a character that no text has")
    given = {"cfg_scale": cfg_scale, "temperature": temperature}
    settings = {"temperature": 1.0, **usual_sampling(model)}
    settings |= {name: value for name, value in given.items() if value is not None}
    loaded = load_model(model)
    asked = [Prompt(prompt, negative)]
    warn_of(unread_by(loaded, asked))
    rollout = sample_rollout(
        loaded,
        asked,
        group_size=count,
        seed=seed,
        batch_size=128,
        **settings,
    )
    make_folder(out)
    pictures = [Image.fromarray(image) for image in to_uint8(rollout.images)]
    drawn = {f"{i:04d}.png": picture for i, picture in enumerate(pictures)}
    drawn["sheet.png"] = contrast_sheet(rollout, pictures, loaded.grid)
    for name, picture in drawn.items():
        write_png(out / name, picture)
    told: dict[str, Any] = {"model": model, "prompt": prompt, "negative": negative}
    told |= {**settings, "seed": seed}
    told |= {"tokens": rollout.tokens.tolist()}
    write_json(out / "samples.json", told)
    return [out / name for name in (*drawn, "samples.json")]


def contrast_sheet(
    rollout: Rollout, pictures: list[Image.Image], grid: tuple[int, int]
) -> Image.Image:
    """Every image over its signed contrast, on one scale, with the prompts above."""
    assert rollout.negative_logprobs is not None
    maps = (rollout.logprobs - rollout.negative_logprobs).cpu().numpy().reshape(-1, *grid)
    limit = robust_limit(maps)
    shown = [display(picture, CELL) for picture in pictures]
    width, height = shown[0].size
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    block = 2 * height + 8 + GAP
    size = (max(2 * MARGIN + columns * (width + GAP) - GAP, 620), 190 + rows * block + 70)
    canvas = Image.new("RGB", size, "white")
    prompt = rollout.prompts[0]
    y = MARGIN - 8
    for line in wrap(prompt.text, 24, True, size[0] - 2 * MARGIN, 2):
        write(canvas, (MARGIN, y), line, 24, bold=True)
        y += 32
    negative = "null prompt" if prompt.negative is None else f"“{prompt.negative}”"
    write(canvas, (MARGIN, y), f"against {negative}", 16, QUIET)
    ends = ("fits the negative", "fits the prompt")
    bar = scale_bar(limit, CONTRAST, ends, beyond=np.abs(maps).max() > limit)
    draw_bar(canvas, bar, MARGIN, y + 36, 320)
    top = y + 36 + 76
    for i, (image, picture, values) in enumerate(zip(pictures, shown, maps, strict=True)):
        x = MARGIN + (i % columns) * (width + GAP)
        place = top + (i // columns) * block
        paste_framed(canvas, picture, x, place)
        colours = diverging(np.asarray(values, np.float32), limit, CONTRAST)
        paste_framed(canvas, token_map(colours, picture, image), x, place + height + 8)
    return canvas.crop((0, 0, size[0], top + rows * block + MARGIN - GAP))
