"""The page's own components: Gradio HTML components whose drawing lies in static/*.js. Knows no run."""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from importlib.resources import files
from typing import Any

import gradio as gr

from .payload import palettes

# of every event: no spinner over what is shown, and no entry in the list of the server's functions
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "undocumented"}
# of every event that reads records: however many ask, two of them run at once, whatever they ask for
READING: dict[str, Any] = {**QUIET, "concurrency_id": "reading", "concurrency_limit": 2}
# of every event that says what is asked for: with Gradio's own "always_last", one that comes while another is under way is sent
# with what that one said; the page asks one after the other and knows the last (maps.js)
EACH: dict[str, Any] = {"trigger_mode": "multiple"}
# lists of what is in the runs: what was chosen may be gone from them
OF_RUNS = ("run", "compare-runs", "compare-metric", "compare-prompt", "evaluation-name")
ALL = 10_000  # entries of a list that are shown at once; Gradio's own 100 would hide the oldest run
# in the order in which they are loaded
SCRIPTS = (
    *("core", "drawing", "terms", "address", "tokens", "group", "versus", "head", "intro"),
    *("maps", "stage", "spread", "place", "inspector", "film", "charts", "gallery", "page"),
)


def group(elem_id: str) -> gr.HTML:
    """Rows of pictures beside their maps (static/group.js); event save tells what was asked for. Value: `pictures` or `note`."""
    return _component("group", elem_id, "t2i.group(element, props, trigger, watch, ['save'])")


def versus(elem_id: str) -> gr.HTML:
    """The same prompt under several runs (static/versus.js); event pick tells the step, None = the newest."""
    return _component("versus", elem_id, "t2i.versus(element, props, trigger, watch, ['pick'])")


def maps(elem_id: str) -> gr.HTML:
    """The credit maps (static/maps.js); events choose, film, others, through and save tell what was asked for."""
    events = "['choose', 'film', 'others', 'through', 'save']"
    script = f"t2i.maps(element, props, trigger, watch, {events})"
    return _component("maps", elem_id, script)


def charts(elem_id: str) -> gr.HTML:
    """Curves and bars (static/charts.js). Value: {"figures": [...]} or `note`."""
    return _component("charts", elem_id, "t2i.charts(element, props, watch)")


def gallery(elem_id: str) -> gr.HTML:
    """The images of an evaluation (static/gallery.js); event pick tells the filter."""
    script = "t2i.gallery(element, props, trigger, watch, ['pick'])"
    return _component("gallery", elem_id, script)


def downloads(elem_id: str) -> gr.HTML:
    """Turns {name, mime, data} into a file of the visitor (static/page.js)."""
    template = '<p class="t2i-said" role="status"></p>'
    return _component("files", elem_id, "t2i.files(element, props, watch)", template)


def header() -> gr.HTML:
    """The page's title, and the switch between light and dark."""
    template = (
        '<header class="t2i-header"><div class="mark-tokens" aria-hidden="true">'
        + "".join("<i></i>" for _ in range(9))
        + "</div><div><h1>t2i-credit</h1><p>where the reward landed</p></div>"
        '<button class="copy" type="button" hidden>copy link</button>'
        '<button class="theme" type="button" hidden aria-label="switch between light and dark">'
        '<span class="sun">☀</span><span class="moon">☾</span></button></header>'
    )
    return _component("header", "t2i-header", "t2i.theme(element)", template)


def links() -> gr.HTML:
    """What keeps the page's address and what it shows together (static/address.js). Value: {"tabs": {name: title}}; event go tells
    the run that an older address names."""
    script = "t2i.links(element, props, trigger, watch, ['go'])"
    return _component("links", "t2i-links", script, "<span hidden></span>")


def plain(value: str = "", elem_id: str | None = None) -> gr.HTML:
    """HTML made by words.py, which escapes; an update changes the page only where it differs."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=None, apply_default_css=False)


def note(title: str, text: str = "", command: str = "") -> dict[str, Any]:
    """The value of a component that has nothing to show, and says why."""
    return {"kind": "notice", "notice": [title, text, command], "sent": time.time()}


def offered(part: Any, value: Any) -> Any:
    """A value that a component is said to have; of a list of what is in the runs, as far as it offers it."""
    if not isinstance(part, gr.Dropdown) or part.elem_id not in OF_RUNS:
        return value
    known = [choice for _, choice in part.choices]
    if part.multiselect:
        return [one for one in value if one in known] if isinstance(value, list) else []
    return value if not isinstance(value, list) and value in known else None


def asked_for(event: gr.EventData) -> dict[str, Any]:
    """What a component of ours sent along with an event; {} for what is no mapping."""
    return dict(event._data) if isinstance(event._data, dict) else {}


@cache
def static(name: str) -> bytes:
    """A file of static/."""
    return (files(__package__) / "static" / name).read_bytes()


def script() -> bytes:
    """All of the page's scripts as one, and the palettes."""
    colours = f"window.t2i.palettes = {json.dumps(palettes())};".encode()
    return b"\n".join([*(static(f"{name}.js") for name in SCRIPTS), colours])


@cache
def _head() -> str:
    """Loads the script; its address changes with its content, so that no browser keeps an old one."""
    return f'<script src="t2i/app.js?{hashlib.sha256(script()).hexdigest()[:12]}"></script>'


def _component(kind: str, elem_id: str, script: str, template: str | None = None) -> gr.HTML:
    return gr.HTML(
        None,
        html_template=template or f'<div class="t2i-{kind}"></div>',
        js_on_load=script,
        apply_default_css=False,
        head=_head(),
        elem_id=elem_id,
        elem_classes=[f"t2i-{kind}-box"],
    )
