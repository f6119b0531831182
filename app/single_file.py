"""The credit maps of a run, or of one step, as one HTML file: pictures, maps, and the numbers under the pointer, without a server and
without a network."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..heatmap.files import thinned
from ..run_folder.atomic import make_folder, write_atomic
from ..run_folder.reader import RunReader
from . import components, credit_maps, one_token, theme
from .runs import RunShelf

MOST_BYTES = 32 << 20  # of the groups of a whole run; probes first
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


def groups(shelf: RunShelf, reader: RunReader, steps: list[int]) -> list[dict[str, Any]]:
    """What the page shows of each group of these steps, the newest step's first; what does not fit any more is left out."""
    name = reader.path.resolve().name
    asked = [
        (not group.probe, -step, group.group)
        for step in steps
        for group in shelf.recorded(reader, step)
    ]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    room = MOST_BYTES
    for _, place, number in sorted(asked):
        shown = credit_maps.show(shelf, name, {"step": -place, "group": number})
        if shown["kind"] == "notice":
            raise RunError(f"{reader.path}: step {-place}: {shown['notice'][1]}")
        size = len(json.dumps(shown))
        if found and size > room:
            continue
        room -= size
        found[place, number] = shown
    there = {-place for place, _ in found}
    for (place, _), shown in found.items():
        known = {number for at, number in found if at == place}
        shown["steps"] = [step for step in shown["steps"] if step in there]
        shown["prompts"] = [one for one in shown["prompts"] if one["group"] in known]
    with_others(shelf, name, list(found.values()), room)
    return [found[key] for key in sorted(found)]


def with_others(shelf: RunShelf, name: str, pages: list[dict[str, Any]], room: int) -> None:
    """Adds the likeliest other codes of every sample to the groups that recorded them, as long as there is room for so many
    bytes; the groups after that say that they are left out."""
    for shown in pages:
        group = shown["group"]
        if not group.get("others"):
            continue
        asked = [
            {"run": name, "step": group["step"], "place": one["place"]} for one in group["samples"]
        ]
        added = [one_token.others(shelf, one) for one in asked] if room > 0 else []
        room -= len(json.dumps(added))
        if added and room >= 0:
            shown["others"] = added
        else:
            group["others"], room = None, 0


def page(reader: RunReader, pages: list[dict[str, Any]]) -> str:
    """The whole document."""
    name = escape(reader.path.resolve().name)
    steps = pages[0]["steps"]
    said = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
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
