"""What can stand behind the # of the page's address (static/address.js writes and reads it there). Needs no page."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from ..errors import UserError

TABS = {
    "training": "Training",
    "maps": "Credit maps",
    "playground": "Playground",
    "compare": "Compare",
    "evaluation": "Evaluation",
}
ADDRESSED = ("run", "tab", "step", "prompt", "sample", "token", "map", "palette")
# the fields of the forms, by their names there; see links.py
PLAYGROUND: tuple[str, ...] = (
    *("generator", "asked", "negative", "mode", "negative2", "generator2"),
    *("guidance", "temperature", "images", "seed", "push"),
)
COMPARE = ("runs", "curve", "smoothing", "along", "compared", "at")


def link_of(opened: str) -> str:
    """The end of an address, "#run=demo&step=110", from what stands behind the # there.

    Raises:
        UserError: it is not NAME=VALUE&..., or there is no such name.
    """
    try:
        found = parse_qsl(opened.removeprefix("#"), keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise UserError(f"--open: {opened!r:.80} is not NAME=VALUE&NAME=VALUE") from None
    for name, value in found:
        if name not in (*ADDRESSED, *PLAYGROUND, *COMPARE):
            known = ", ".join((*ADDRESSED, *PLAYGROUND, *COMPARE))
            raise UserError(f"--open: {name!r:.40} is no part of an address ({known})")
        if name == "tab" and value not in TABS:
            raise UserError(f"--open: tab={value!r:.40}; {', '.join(TABS)} are there")
        if name in ("step", "sample", "token") and not (value.isdecimal() and value.isascii()):
            raise UserError(f"--open: {name}={value!r:.40} is not a number")
    if any(name in ("step", "prompt", "sample", "token", "map") for name, _ in found):
        found = list({"tab": "maps", **dict(found)}.items())  # only there they can be seen
    for tab, names in (("playground", PLAYGROUND), ("compare", COMPARE)):
        if any(name in names for name, _ in found):
            found = list({"tab": tab, **dict(found)}.items())
    return f"#{urlencode(found)}"
