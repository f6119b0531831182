"""From a recorded step to what the browser draws: pictures, maps, numbers, outlines, one colour scale per group.
Reads no file itself (see runs.py and run_folder/reader.py).

Shapes: N kept samples of a step, T = H*W image tokens in raster order, images h x w pixels.
"""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import RunError
from ..heatmap.colours import PALETTES, bar_marks, edges, table
from ..heatmap.draw import display
from ..heatmap.files import sample_view
from ..heatmap.lines import STRENGTHS, picture_lines
from ..heatmap.sample import SampleView, Scale, common_scale
from ..heatmap.text import printable, spoken
from ..run_folder.alternatives import has_alternatives
from ..run_folder.layout import decode_mask
from ..run_folder.reader import StepRecord

MOST_NUMBERS = 8 << 20  # bytes of the arrays of a group
MOST_SHOWN, MOST_SECONDS = 16 << 20, 3.0  # bytes of the pictures of a group, and what they may take
MOST_OBJECTS, MOST_MASKED, MOST_EDGES = (
    64,
    32 << 20,
    50_000,
)  # of a picture; pixels of its masks; of one outline
LONGEST, LINES = 512, 432  # pixels of a picture on the page, and of its lines
SHOWN = (
    "logprobs",
    "negative_logprobs",
    "contrast",
    "credit",
    "token_advantages",
    "entropy",
    "value_change",
    "reward_map",
)
SIGNED = {"credit": False, "contrast": True, "advantage": True, "value": True, "map": True}


def palettes() -> dict[str, dict[str, str]]:
    """{kind: {name: 257 colours}}, as base64 of 257 x 3 bytes, the usual one first."""
    return {
        kind: {name: _base64(table(name)) for name in names} for kind, names in PALETTES.items()
    }


def group_payload(
    record: StepRecord, places: Sequence[int], room: Room | None = None
) -> dict[str, Any]:
    """What the browser needs to show one group of a step.

    Args:
        record: a step that `check_record` let pass.
        places: of the group's samples in the step; as many of them are shown as `MOST_NUMBERS` lets.
        room: for its pictures, which is used up; None = that of one group.
    """
    size = sum(array[0].nbytes for array in record.arrays.values())
    places = places[: max(1, MOST_NUMBERS // size)]
    blank, room = without_pictures(record), room or Room()
    views = [sample_view(blank, place) for place in places]
    first = record.samples[places[0]]
    return {
        "step": record.step,
        "prompt": spoken(first["prompt"]),
        "negative": None if first["negative"] is None else spoken(first["negative"]),
        "grid": list(record.grid),
        "codebook": record.codebook_size,
        "others": has_alternatives(record),
        "scale": scale_payload(common_scale(views)),
        "samples": [room.sample(record, place) for place in places],  # one picture at a time
    }


class Room:
    """What the pictures of a group may cost: those after so many bytes (None: `MOST_SHOWN`) or seconds (`MOST_SECONDS`) are left
    out."""

    def __init__(self, most: int | None = None, seconds: float | None = None) -> None:
        self._bytes = MOST_SHOWN if most is None else most
        self._until = time.monotonic() + (MOST_SECONDS if seconds is None else seconds)

    def left(self) -> bool:
        """Whether there is any."""
        return self._bytes >= 0 and time.monotonic() < self._until

    def take(self, size: int) -> None:
        """Uses up so many bytes of it."""
        self._bytes -= size

    def sample(self, record: StepRecord, place: int) -> dict[str, Any]:
        """`sample_payload`, without picture and objects where there is no room left."""
        left = self.left()
        seen = record if left else without_pictures(record)
        shown = sample_payload(seen, place, view_of(seen, place))
        if not left:
            return {**shown, "objects": [], "left_out": True}
        self.take(len(shown["image"] or "") + len((shown["lines"] or {}).get("steps", "")))
        self.take(sum(len(one["path"]) for one in shown["objects"]))
        return shown


def sample_payload(record: StepRecord, place: int, view: SampleView) -> dict[str, Any]:
    """One sample: picture, numbers, objects; `arrays` as base64 of float32 (tokens: int32)."""
    sample, arrays = record.samples[place], record.arrays
    picture = view.image
    objects = few_objects(sample.get("objects"), picture.size)
    found = objects_payload(objects, picture.size)
    shown = {name: encode(arrays[name][place]) for name in SHOWN if name in arrays}
    return {
        "place": place,
        "image": None if picture is MISSING else picture_url(picture),
        "lines": None if picture is MISSING else lines_payload(picture, record.grid),
        "pixels": list(picture.size),
        "reward": sample["reward"],
        "parts": {printable(n): part for n, part in (sample.get("reward_parts") or {}).items()},
        "advantage": sample["advantage"],
        "gold": bool(sample["gold"]),
        "objects": found,
        "located": None
        if picture is MISSING
        else located(arrays["credit"][place], objects, record.grid, picture.size[::-1]),
        "tokens": encode(arrays["tokens"][place].astype(np.int32)),
        "arrays": shown,
    }


MISSING = Image.new("RGB", (8, 8))  # stands for a picture that was deleted or is broken


def view_of(record: StepRecord, place: int) -> SampleView:
    """`sample_view`, with `MISSING` in place of a picture that cannot be read."""
    try:
        return sample_view(record, place)
    except RunError:
        return sample_view(without_pictures(record), place)


def few_objects(objects: Any, size: tuple[int, int]) -> list[Any]:
    """As many objects of a picture (w, h) as can be drawn at once."""
    return (objects or [])[: max(1, min(MOST_OBJECTS, MOST_MASKED // (size[0] * size[1])))]


def alone(record: StepRecord, place: int) -> StepRecord:
    """One sample of a step, as the only one, without the memory of the others."""
    arrays = {name: array[place : place + 1].copy() for name, array in record.arrays.items()}
    return replace(record, samples=[record.samples[place]], arrays=arrays)


def without_pictures(record: StepRecord) -> StepRecord:
    """The step, every picture of which is `MISSING`."""
    return _WithoutPictures(**{one.name: getattr(record, one.name) for one in fields(StepRecord)})


class _WithoutPictures(StepRecord):
    """A recorded step whose pictures are gone."""

    def image(self, place: int) -> Image.Image:
        return MISSING


def scale_payload(scale: Scale) -> dict[str, Any]:
    """The colour scale of a group: limits, and for each kind of map `edges` (base64 of float32) and `bar_marks`."""
    limits = {kind: float(getattr(scale, kind)) for kind in SIGNED}
    return {
        **limits,
        "edges": {kind: encode(edges(limits[kind], signed)) for kind, signed in SIGNED.items()},
        "marks": {
            kind: bar_marks(limits[kind], signed, kind in scale.clipped)
            for kind, signed in SIGNED.items()
        },
    }


def lines_payload(picture: Image.Image, grid: tuple[int, int]) -> dict[str, Any]:
    """The picture as lines: size (h, w), opacity of each level, and `steps`, base64 of a byte for each pixel of a line in raster order: how many pixels
    it is further than the one before (the first: than one before the picture) times 4, plus its level; 63 pixels further
    without a line are level 0."""
    levels = picture_lines(picture, grid, display(picture, LINES).size)
    places = np.flatnonzero(levels)
    steps = np.diff(places, prepend=-1)
    jumps, rest = np.divmod(steps - 1, 63)
    ends = np.cumsum(jumps + 1) - 1
    written = np.full(ends[-1] + 1 if ends.size else 0, 63 * 4, np.uint8)
    written[ends] = 4 * (rest + 1) + levels.ravel()[places]
    return {"size": levels.shape, "steps": _base64(written), "strengths": STRENGTHS}


def objects_payload(objects: Any, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Name, colour, whether it was prompted, and an SVG path in pixels of the outline: of the mask, else of the box.

    Args:
        objects: as the run folder keeps them, or None.
        size: (w, h) of the picture.
    """
    found = []
    for entry in objects or ():
        path = None
        if entry.get("mask") and entry["mask"]["size"] == [size[1], size[0]]:
            path = outline(decode_mask(entry["mask"]))
        if not path and entry.get("box"):
            x0, y0, x1, y1 = (float(side) for side in entry["box"])
            path = f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}Z"
        if path:
            found.append(
                {
                    "name": printable(str(entry.get("name", ""))),
                    "color": None if entry.get("color") is None else printable(str(entry["color"])),
                    "prompted": bool(entry.get("prompted")),
                    "path": path,
                }
            )
    return found


def outline(mask: NDArray[np.bool_]) -> str:
    """The border of a mask (h, w) as an SVG path in pixels: straight pieces along pixel edges; "" of more than `MOST_EDGES`."""
    padded = np.pad(mask.astype(bool), 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (h + 1, w): edges that run from left to right
    down = padded[1:-1, 1:] != padded[1:-1, :-1]  # (h, w + 1): edges that run from top to bottom
    if np.count_nonzero(across) + np.count_nonzero(down) > MOST_EDGES:
        return ""
    pieces = [f"M{x0} {y}H{x1}" for y, row in enumerate(across) for x0, x1 in _runs(row)]
    pieces += [f"M{x} {y0}V{y1}" for x, column in enumerate(down.T) for y0, y1 in _runs(column)]
    return "".join(pieces)


def located(
    credit: NDArray[np.float32], objects: Any, grid: tuple[int, int], size: tuple[int, int]
) -> dict[str, float] | None:
    """How much credit lies on the prompted objects.

    Args:
        credit: (T,), row mean 1.
        objects: as the run folder keeps them, or None.
        grid: (H, W).
        size: (h, w) of the picture.

    Returns:
        on_objects: mean credit of their tokens (each token counts by the share of it that they cover), 1 = as
        everywhere; area: share of the picture that they cover. None if no mask of a prompted object is known, or
        if nothing or everything is covered.
    """
    covered = np.zeros(size, dtype=bool)
    for entry in objects or ():
        if entry.get("prompted") and entry.get("mask"):
            if entry["mask"]["size"] != list(size):
                return None
            covered |= decode_mask(entry["mask"])
    if covered.all() or not covered.any():
        return None
    share = np.asarray(
        Image.fromarray(covered.astype(np.float32)).resize(grid[::-1], Image.Resampling.BOX)
    ).ravel()
    return {
        "on_objects": float((credit * share).sum() / share.sum()),
        "area": float(covered.mean()),
    }


def encode(values: NDArray[Any]) -> str:
    """Base64 of the values, float32 or int32, little-endian; what is not finite stays so, and is drawn as 0."""
    return _base64(values.astype("<f4" if values.dtype.kind == "f" else "<i4"))


def picture_url(picture: Image.Image, longest: int = LONGEST, exact: int = 128) -> str:
    """A data: address, so that the app never serves a file; large pictures are made smaller, those of at most `exact` pixels a
    side sent as they are."""
    if max(picture.size) > longest:
        picture = picture.copy()
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "png" if max(picture.size) <= exact else "jpeg"
    picture.convert("RGB").save(
        buffer, kind, **({} if kind == "png" else {"quality": 92, "subsampling": 0})
    )
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def plain(value: Any) -> Any:
    """Numbers that JSON can hold: what is not finite becomes None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, end) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
