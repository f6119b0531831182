"""The credit maps of a run, or of one step, as one HTML file: pictures, maps, and the numbers under the pointer, without a server and
without a network."""

from __future__ import annotations

import json
import time
from html import escape
from math import inf
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..heatmap.files import thinned
from ..run_folder.atomic import make_folder, write_atomic
from ..run_folder.reader import RunReader
from . import components, one_token, theme
from .credit_maps import critic_weight, one_group
from .payload import MOST_SECONDS, Room
from .runs import RunShelf, liveliest
from .steps import read_step

MOST_BYTES = 32 << 20  # of the groups of a whole run; probes first
MOST_OF_STEP, MOST_GROUPS = 100, 500  # groups
FORBIDDEN = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
HIDDEN = ".single .save, .single .film, .single .copy { display: none; }"
AROUND = (
    ".single { max-width: 1500px; margin: 0 auto; padding: 26px 34px 60px; color: var(--t2i-ink); "
    "font-family: 'IBM Plex Sans', system-ui, sans-serif; line-height: 1.5; }"
    ".single > h1 { margin: 0; font-size: 22px; } .single > p { margin: 2px 0 24px; color: var(--t2i-quiet); font-size: 14px; }"
    ".single button, .single select, .single input { font: inherit; } body { margin: 0; }"
)


def write_page(run: Path | str, step: int | None = None, out: Path | str | None = None) -> Path:
    """Writes the file.

    Args:
        run: the run folder.
        step: one step, every group of it; None = the run, as far as `thinned` and `MOST_BYTES` let it.
        out: the file; None = credit.html in heatmaps/ of the run, or in the step's folder there.

    Raises:
        RunError: no such run or step, a damaged file, or a place that cannot be written.
    """
    reader = RunReader(run)
    steps = reader.steps()
    if not steps:
        raise RunError(f"{reader.path}: no step has been recorded yet")
    if step is not None and step not in steps:
        reader.step(step)  # says which there are
    shown = [step] if step is not None else thinned(steps)
    pages = groups(RunShelf(reader.path), reader, shown)
    text = page(reader, pages)
    path = Path(out) if out is not None else reader.heatmaps(step) / "credit.html"
    make_folder(path.parent)
    write_atomic(path, text.encode())
    return path


def groups(
    shelf: RunShelf,
    reader: RunReader,
    steps: list[int],
    most: int = MOST_BYTES,
    seconds: float = inf,
) -> list[dict[str, Any]]:
    """What the page shows of each group of these steps, the newest step's first, of a step the liveliest first, as the app opens
    it; what does not fit any more is left out before it is made, probes last.

    Args:
        shelf: the runs.
        reader: the run.
        steps: see above.
        most: bytes of them all.
        seconds: that making them may take.

    Raises:
        RunError: a step cannot be read, or not one group fits.
    """
    name, known = reader.path.resolve().name, reader.steps()
    room, until = Room(most, seconds), time.monotonic() + seconds
    recorded = {step: shelf.recorded(reader, step) for step in steps}
    asked = [
        (not one.probe, -step, one.group, one)
        for step, them in recorded.items()
        for one in them[:MOST_OF_STEP]
    ]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    record = None
    for _, place, number, chosen in sorted(asked, key=lambda one: one[:3])[:MOST_GROUPS]:
        if found and not room.left():
            break
        if record is None or record.step != -place:
            record = read_step(reader, -place)
        alike = Room(most // 2, min(MOST_SECONDS, max(0.0, until - time.monotonic())))
        shown = one_group(name, known, record, recorded[-place], chosen, alike)
        shown["group"]["critic_weight"] = critic_weight(shelf, reader, record.step)
        del shown["prompts"]  # of a thousand groups a thousand each
        room.take(size := len(json.dumps(shown)))
        if room.left() or (not found and size <= most):
            found[place, number] = shown
    if not found:
        raise RunError(f"{reader.path}: no group fits into a page of {most >> 20} MiB")
    there = {-place for place, _ in found}
    prompts = {
        step: [
            {"group": one.group, "prompt": one.prompt, "probe": one.probe}
            for one in them
            if (-step, one.group) in found
        ]
        for step, them in recorded.items()
    }
    for (place, _), shown in found.items():
        shown["steps"] = [step for step in shown["steps"] if step in there]
        shown["prompts"] = prompts[-place]
    with_others(shelf, name, list(found.values()), room)
    first = {
        step: liveliest([one for one in them if (-step, one.group) in found]).group
        for step, them in recorded.items()
        if step in there
    }
    return [found[key] for key in sorted(found, key=lambda k: (k[0], k[1] != first[-k[0]], k[1]))]


def with_others(shelf: RunShelf, name: str, pages: list[dict[str, Any]], room: Room) -> None:
    """Adds the likeliest other codes of every sample to the groups that recorded them, as long as there is room; the groups
    after that say that they are left out."""
    record = None
    for shown in pages:
        group = shown["group"]
        if not group.get("others"):
            continue
        added = None
        if room.left():
            if record is None or record.step != group["step"]:
                record = shelf.open(name).step(group["step"])
            places = [one["place"] for one in group["samples"]]
            added = one_token.all_others(record, name, places, room)
        if added:
            shown["others"] = added
        else:
            group["others"] = None
            room.take(MOST_BYTES)


def page(reader: RunReader, pages: list[dict[str, Any]], many: int = 0) -> str:
    """The whole document; `many` groups were recorded, which is said where some of them are left out."""
    name = escape(reader.path.resolve().name)
    steps = pages[0]["steps"]
    said = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    if many > len(pages):
        said += f": {len(pages)} of {many} groups, the others are left out"
    # what ends a script or a line of one cannot stand in it
    data = json.dumps(pages, ensure_ascii=True).replace("<", "\\u003c")
    scripts = [components.script().decode(), components.static("single.js").decode()]
    script = "\n".join(scripts).replace("</", "<\\/")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{FORBIDDEN}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: where the reward landed</title>{theme.head()}"
        f"<style>{theme.css()}\n{HIDDEN}\n{AROUND}</style></head>"
        f'<body><main class="single gradio-container"><h1>{name}</h1><p>Where the reward landed, {said}</p>'
        '<div class="t2i-maps-box"><div class="t2i-maps"></div></div></main>'
        f"<script>{script}</script>"
        f'<script>window.t2i.single(document.querySelector(".t2i-maps-box"), {data});</script>'
        "</body></html>\n"
    )
