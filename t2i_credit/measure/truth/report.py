"""A truth measurement as files: truth.json, tables in Markdown and, of pictures, a plot. Measures nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...run_folder.atomic import make_folder, write_atomic, write_json
from ..intervals import markdown_table
from .text import OUTCOMES

Tables = dict[str, list[dict[str, str]]]  # {title: rows}


def write_report(found: Mapping[str, Any], folder: Path) -> None:
    """Writes truth.md, of pictures truth.png, and truth.json as the last.

    Args:
        found: of `Measurement.run` or `truth_of_text`, and "model": what was measured, as the reader calls it.
        folder: made if it is not there.

    Raises:
        RunError: the disk refuses.
    """
    make_folder(folder)
    if not _of_text(found):
        write_atomic(folder / "truth.png", _plot(found))
    page = markdown(found["model"], about(found), tables(found))
    write_atomic(folder / "truth.md", page.encode())
    write_json(folder / "truth.json", found)


def _of_text(found: Mapping[str, Any]) -> bool:
    return "correct" in found


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
        lines += ["", f"## {title}", "", markdown_table(rows[0], (row.values() for row in rows))]
    return "\n".join([*lines, ""])


def about(found: Mapping[str, Any]) -> str:
    """What was measured on how much, in one line."""
    parts = _about_text(found) if _of_text(found) else _about_pictures(found)
    return "; ".join(parts) + ". 95% intervals in brackets."


def _about_pictures(found: Mapping[str, Any]) -> list[str]:
    parts = [f"policy {found['policy']}, guidance {found['cfg_scale']:g}"]
    if "images" in found:
        parts.append(
            f"{found['images']} images of {found['prompts']} prompts, mean reward {found['reward']:.3f}"
        )
    if "localisation" in found:
        measured = found["localisation"]
        finder = f" (found by {found['detector']})" if found.get("detector") else ""
        parts.append(
            f"objects{finder} on {measured['area'][0]:.2f} of the tokens in {measured['samples']} images"
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
    if "oracle" in found:
        measured = found["oracle"]
        parts.append(
            f"{found['settings']['oracle']} continuations after every row, standard error of a value {measured['error']:.3f}, "
            f"exact credit would reach a correlation of {shown(measured['ceiling'])}"
        )
    parts += [f"left out: {name} ({why})" for name, why in found.get("left_out", {}).items()]
    return parts


def _about_text(found: Mapping[str, Any]) -> list[str]:
    parts = [f"{found['samples']} answers, {found['correct']:.3f} of them right"]
    for outcome in OUTCOMES:
        measured = found["specificity"][outcome]
        share = f"on {measured['share'][0]:.3f} of their tokens" if measured["samples"] else ""
        parts.append(f"a deciding step in {measured['samples']} {outcome} ones {share}".rstrip())
    return [*parts, f"{found['causality']['changeable']:.1f} tokens of an answer can be changed"]


def shown(interval: Sequence[float | None] | None) -> str:
    """ "0.512 [0.401, 0.623]", "0 [no interval]", "0.5 by construction"; a dash where there is no number."""
    if interval is None or interval[0] is None or not math.isfinite(interval[0]):
        return "-"
    if len(interval) == 1:
        return f"{interval[0]:g} by construction"
    known = [end for end in interval if end is not None and not math.isnan(end)]
    value, *ends = (f"{end:.4g}" if abs(end) < 0.1 else f"{end:.3f}" for end in known)
    return f"{value} [{', '.join(ends) if len(ends) == 2 else 'no interval'}]"


# (measure, credit): what needs no measuring. Equal credit ranks no token above another; random's is what is divided by.
BY_CONSTRUCTION = {
    **{(key, "uniform"): [0.5] for key in ("auroc", "removed", "named", "apart", "against_filler")},
    ("lift", "uniform"): [1.0],
    ("ratio", "random"): [1.0],
}
_MODE = {"kept": "kept", "continued": "sampled on"}
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
    "oracle": {
        "correlation": "correlation with the true advantage of rows",
        "of_ceiling": "share of what exact credit would reach",
    },
}


_TEXT_SPECIFICITY = {
    "auroc": "AUROC of the deciding digits",
    "against_filler": "AUROC against filler words",
    "lift": "credit of a deciding digit, times the mean",
}
_TEXT_CAUSALITY = {
    "all": "effect, highest credit",
    "right": "of right answers",
    "wrong": "of wrong answers",
    "lowest": "effect, lowest credit",
    "ratio": "times random",
}


def _columns(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{title: {column: {assigner: interval}}} of what was measured."""
    columns = {}
    if _of_text(found):
        for outcome in OUTCOMES:
            rows = found["specificity"][outcome]["assigners"]
            columns[f"specificity, {outcome} answers"] = _picked(rows, _TEXT_SPECIFICITY)
        rows = {
            name: {**row["highest"], "lowest": row["lowest"]["all"], "ratio": row["ratio"]}
            for name, row in found["causality"]["assigners"].items()
        }
        return columns | {"causality": _picked(rows, _TEXT_CAUSALITY)}
    for measure, titles in _OTHERS.items():
        if found.get(measure):
            columns[measure] = _picked(found[measure]["assigners"], titles)
    for branch, modes in found.get("causality", {}).items():
        for mode, measured in modes.items():
            title = f"causality, {branch} redraw, others {_MODE[mode]}"
            columns[title] = _picked(measured["assigners"], _CAUSALITY)
    return columns


def _picked(assigners: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    picked = {
        title: {
            name: BY_CONSTRUCTION.get((key, name), row[key])
            for name, row in assigners.items()
            if row.get(key)
        }
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
            known = [end for end in interval if end is not None and math.isfinite(end)]
            if not known or interval[0] != known[0]:
                continue
            place = len(names) - names.index(name)
            if len(known) == 3:
                axis.plot(known[1:], [place, place], color="0.45", linewidth=1.5)
            axis.plot(interval[:1], [place], "o", color="tab:blue", markersize=5)
        axis.set_title(f"{title}\n{column}", fontsize=9)
        axis.set_yticks(range(len(names), 0, -1), names, fontsize=8)
        axis.grid(axis="x", color="0.92")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
