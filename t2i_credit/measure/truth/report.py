"""A truth measurement as files: truth.json, tables in Markdown and, of pictures, a plot. Measures nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...run_folder.atomic import make_folder, write_atomic, write_json
from .text import OUTCOMES

_SPECIFICITY = {
    "auroc": "AUROC of the deciding digits",
    "against_filler": "AUROC against filler words",
    "lift": "credit of a deciding digit, times the mean",
}

FILES = ("truth.json", "truth.md", "truth.png")

Tables = dict[str, list[dict[str, str]]]  # {title: rows}


def write_report(found: Mapping[str, Any], folder: Path) -> None:
    """Writes all three files, the JSON last.

    Raises:
        RunError: the disk refuses.
    """
    write_atomic(folder / "truth.png", _plot(found))
    page = markdown(found["model"], about(found), tables(found))
    write_atomic(folder / "truth.md", page.encode())
    write_json(folder / "truth.json", found)


def tables(found: Mapping[str, Any]) -> Tables:
    """{title: rows}: one table per measure, one row per credit or baseline, 95% intervals in brackets."""
    shown_tables = {}
    for title, columns in _columns(found).items():
        names = list(dict.fromkeys(name for values in columns.values() for name in values))
        shown_tables[title] = [
            {"credit": name} | {key: shown(values.get(name)) for key, values in columns.items()}
            for name in names
        ]
    return shown_tables


def markdown(model: str, line: str, tables: Tables) -> str:
    """The tables with a line about how they were measured."""
    lines = [f"# Credit truth of {model}", "", line]
    for title, rows in tables.items():
        head = list(rows[0])
        lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join([*lines, ""])


def about(found: Mapping[str, Any]) -> str:
    """What was measured on how much, in one line."""
    parts = [f"policy {found['policy']}, guidance {found['cfg_scale']:g}"]
    if "images" in found:
        parts.append(
            f"{found['images']} images of {found['prompts']} prompts, mean reward {found['reward']:.3f}"
        )
    if "localisation" in found:
        measured = found["localisation"]
        parts.append(
            f"objects{_finder(found)} on {measured['area'][0]:.2f} of the tokens in {measured['samples']} images"
        )
    if "causality" in found:
        changed = [found["causality"][b]["kept"]["changed"] for b in ("positive", "negative")]
        parts.append(
            f"{changed[0]:.1f} tokens changed by the positive prompt, {changed[1]:.1f} by the negative"
        )
    if found.get("specificity"):
        parts.append(f"{found['specificity']['samples']} images with both objects")
    if "gradients" in found:
        measured = found["gradients"]
        parts.append(f"{measured['batches']} batches of {measured['samples']} images")
    if left_out := found.get("left_out"):
        parts += [f"left out: {name} ({why})" for name, why in left_out.items()]
    return "; ".join(parts) + ". 95% intervals in brackets."


def _finder(found: Mapping[str, Any]) -> str:
    """Who found the objects, if that is written down."""
    return f" (found by {found['detector']})" if found.get("detector") else ""


def shown(interval: Sequence[float | None] | None) -> str:
    """ "0.512 [0.401, 0.623]", or a dash where there is no number."""
    if interval is None or any(end is None or math.isnan(end) for end in interval):
        return "-"
    value, low, high = (f"{end:.4g}" if abs(end or 0) < 0.1 else f"{end:.3f}" for end in interval)
    return "-" if value == "inf" else f"{value} [{low}, {high}]"


_CAUSALITY = {
    "highest": "drop, highest credit",
    "lowest": "drop, lowest credit",
    "ratio": "times random",
    "ahead_of_entropy": "ahead of entropy",
}
_OTHERS = {
    "localisation": {
        "auroc": "AUROC",
        "mass": "share of credit on objects",
        "pointing": "top token on an object",
    },
    "specificity": {
        "removed": "AUROC of the object that the negative lacks",
        "named": "AUROC of the object that it names",
        "apart": "AUROC of the first against the second",
    },
    "gradients": {
        "snr": "signal-to-noise ratio of one batch",
        "times_uniform": "times uniform",
        "snr_ahead": "ahead of uniform",
        "cosine": "cosine of two batches",
        "direction": "cosine of expected gradients with uniform's",
        "large": "cosine with uniform's of all other batches",
    },
}


def _columns(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{title: {column: {assigner: interval}}} of what was measured."""
    columns = {}
    for measure, titles in _OTHERS.items():
        if found.get(measure):
            columns[measure] = _picked(found[measure]["assigners"], titles)
    for branch, modes in found.get("causality", {}).items():
        for mode, measured in modes.items():
            title = f"causality, {branch} redraw, others {_MODE[mode]}"
            columns[title] = _picked(measured["assigners"], _CAUSALITY)
    return columns


_MODE = {"kept": "kept", "continued": "sampled on"}


def _picked(assigners: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    picked = {
        title: {name: row[key] for name, row in assigners.items() if row.get(key)}
        for key, title in titles.items()
    }
    return {title: values for title, values in picked.items() if values}


def _plot(found: Mapping[str, Any]) -> bytes:
    """A panel per measure with its first figure: the assigners as points with their intervals."""
    from matplotlib.figure import Figure

    panels = {title: next(iter(columns.items())) for title, columns in _columns(found).items()}
    names = list(dict.fromkeys(name for _, values in panels.values() for name in values))
    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    figure = Figure(
        figsize=(2.0 + 4.0 * wide, high * (1.1 + 0.26 * len(names))), layout="constrained"
    )
    axes = figure.subplots(high, wide, sharey=True, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, (column, values)) in zip(axes, panels.items(), strict=False):
        for name, interval in values.items():
            if not all(map(math.isfinite, interval)):
                continue
            place = len(names) - names.index(name)
            axis.plot(interval[1:], [place, place], color="0.45", linewidth=1.5)
            axis.plot(interval[:1], [place], "o", color="tab:blue", markersize=5)
        axis.set_title(f"{title}\n{column}", fontsize=9)
        axis.set_yticks(range(len(names), 0, -1), names, fontsize=8)
        axis.grid(axis="x", color="0.92")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def write_text_report(found: Mapping[str, Any], folder: Path, *, model: str) -> None:
    """Writes both files, the JSON last.

    Args:
        found: see `text.truth_of_text`.
        folder: made if it is not there.
        model: what was measured, as the reader calls it.

    Raises:
        RunError: the disk refuses.
    """
    make_folder(folder)
    page = markdown(model, about_text(found), text_tables(found))
    write_atomic(folder / "truth.md", page.encode())
    write_json(folder / "truth.json", {"model": model, **found})


def text_tables(found: Mapping[str, Any]) -> Tables:
    """{title: rows}: one row per credit or baseline, 95% intervals in brackets."""
    return {
        **{
            f"specificity, {outcome} answers": [
                {"credit": name} | {title: shown(row[key]) for key, title in _SPECIFICITY.items()}
                for name, row in found["specificity"][outcome]["assigners"].items()
            ]
            for outcome in OUTCOMES
        },
        "causality": [
            {
                "credit": name,
                "effect, highest credit": shown(row["highest"]["all"]),
                "of right answers": shown(row["highest"]["right"]),
                "of wrong answers": shown(row["highest"]["wrong"]),
                "effect, lowest credit": shown(row["lowest"]["all"]),
                "times random": shown(row["ratio"]),
            }
            for name, row in found["causality"]["assigners"].items()
        ],
    }


def about_text(found: Mapping[str, Any]) -> str:
    """What was measured on how much, in one line."""
    parts = [f"{found['samples']} answers, {found['correct']:.3f} of them right"]
    for outcome in OUTCOMES:
        measured = found["specificity"][outcome]
        share = f"on {measured['share'][0]:.3f} of their tokens" if measured["samples"] else ""
        parts.append(f"a deciding step in {measured['samples']} {outcome} ones {share}".rstrip())
    parts.append(f"{found['causality']['changeable']:.1f} tokens of an answer can be changed")
    return "; ".join(parts) + ". 95% intervals in brackets."
