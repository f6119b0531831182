"""Which method a run is: nearest recipe, credit, model, seed, versions, and the whole configuration. Everything that comes from the
run is escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from html import escape
from inspect import signature
from typing import Any

from ..config.files import dotted, list_recipes
from ..config.schema import Config, load_config
from ..config.text import TextConfig, load_text_config
from ..errors import RunError
from ..run_folder.reader import RunReader
from ..yaml_text import write_yaml
from .figures import number
from .methods import SEED_KEYS
from .runs import RunShelf, or_in_words
from .texts import is_text

NEAR = 12  # keys in which a run may differ from a recipe that it is said to be
# AUROC of "this token lies on a prompted object" on the shipped base `shapes`, with its 95% interval (docs/credit-truth.md)
MEASURED = {
    "guidance_contrast": "0.510 [0.500, 0.520]",
    "top_entropy": "0.447 [0.441, 0.454]",
    "entropy_rank": "0.494 [0.482, 0.506]",
    "critical_tokens": "0.555 [0.546, 0.562]",
    "similarity": "0.850 [0.840, 0.858]",
    "visual": "0.756 [0.745, 0.766]",
    "visual,kind=shift": "0.662 [0.652, 0.671]",
    "visual,kind=both": "0.704 [0.694, 0.714]",
    "visual,kind=figure": "0.889 [0.879, 0.897]",
}
VERSIONS = ("t2i_credit", "torch", "transformers", "device", "commit", "started")


@or_in_words(lambda why, *_: "")
def about(shelf: RunShelf, name: object) -> str:
    """The folded box about a run; "" where its configuration cannot be read, which is told elsewhere."""
    reader = shelf.open(name)
    config = reader.config()
    settings = dotted(config)
    environment = _known(reader)
    credit = str(settings.get("credit.name", ""))
    recipe = _recipe(settings, is_text(reader))
    set_so, mixed = parameters(settings), _mixed(settings)
    rows = [
        ("Recipe", recipe),
        ("Credit", f"{credit}: {_description(credit)}" if _description(credit) else credit),
        ("Credit's parameters", "; ".join(filter(None, (set_so, mixed)))),
        ("What its map shows", _shows(settings)),
        ("Advantage", str(settings.get("advantage.name", ""))),
        ("Model", str(settings.get("model.name", ""))),
        ("Seed", str(settings.get("train.seed", ""))),
        ("Versions", ", ".join(f"{k} {environment[k]}" for k in VERSIONS if k in environment)),
    ]
    listed = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows if value
    )
    name = recipe.partition(", with ")[0]
    short = ", ".join(filter(None, (credit, set_so, mixed)))
    return (
        f'<details class="method"><summary>Which method is this? <b>{escape(name)}</b> '
        f"<span>{escape(short)}</span></summary><div>"
        f"<dl>{listed}</dl><details><summary>The whole configuration</summary>"
        f"<pre>{escape(write_yaml(config))}</pre></details></div></details>"
    )


def parameters(settings: Mapping[str, Any]) -> str:
    """The parameters of the credit that differ from its defaults, "" where all have them."""
    from ..credit.table import CREDIT  # imports torch

    entry = CREDIT.get(str(settings.get("credit.name")))
    if entry is None:
        return ""
    known = signature(entry.assign).parameters.values()
    usual = {f"credit.{one.name}": one.default for one in known if one.kind is one.KEYWORD_ONLY}
    other = [key for key, value in usual.items() if settings.get(key, value) != value]
    return ", ".join(f"{key.removeprefix('credit.')} {settings[key]}"[:80] for key in other)


def _mixed(settings: Mapping[str, Any]) -> str:
    """How much of the credit is the same for every token."""
    strength = number(settings.get("credit.strength", 1.0))
    return f"{1 - strength:.0%} of it even over all tokens" if 0 <= strength < 1 else ""


def _shows(settings: Mapping[str, Any]) -> str:
    """What the credit's map can and cannot show, as far as it was measured on the model that the run began from."""
    credit, kind = settings.get("credit.name"), settings.get("credit.kind")
    if credit == "uniform":
        return "every token has the same credit, so its map is even"
    if settings.get("model.name") != "shapes":
        return ""
    measured = MEASURED.get(f"{credit},kind={kind}") or MEASURED.get(str(credit))
    if measured is None:
        return ""
    low = float(measured.partition("[")[2].partition(",")[0])
    where = (
        "lies on the prompted objects"
        if low > 0.6
        else "lies on the prompted objects little more than chance would"
        if low > 0.5
        else "does not lie on the prompted objects"
    )
    return f"before training it {where} (AUROC {measured}; 0.5 is chance, 1 is perfect)"


def _known(reader: RunReader) -> Mapping[str, Any]:
    try:
        return reader.environment()
    except RunError:
        return {}


def _recipe(settings: Mapping[str, Any], text: bool) -> str:
    """The shipped recipe that a configuration is nearest to, and in what it differs."""
    best: tuple[int, str, list[str]] | None = None
    for name, shipped in _shipped(text).items():
        other = [
            key
            for key in sorted(set(settings) & set(shipped))
            if settings[key] != shipped[key] and key not in SEED_KEYS
        ]
        if best is None or len(other) < best[0]:
            best = len(other), name, other
    if best is None or best[0] > NEAR:
        return "its own"
    changed = ", ".join(f"{key}={settings[key]}"[:80] for key in best[2])
    return f"{best[1]}, with {changed}" if changed else best[1]


@cache
def _shipped(text: bool) -> dict[str, dict[str, Any]]:
    """{recipe: its settings by dotted key}."""
    configs = {name: _config(name, text) for name in list_recipes(text=text)}
    return {name: dotted(config.model_dump(mode="json")) for name, config in configs.items()}


def _config(name: str, text: bool) -> Config | TextConfig:
    if not text:
        return load_config(name)
    loaded = load_text_config(name)
    assert loaded is not None, name  # list_recipes says that it is one for texts
    return loaded[0]


def _description(credit: str) -> str:
    from ..credit.table import CREDIT  # imports torch

    entry = CREDIT.get(credit)
    return entry.description if entry else ""
