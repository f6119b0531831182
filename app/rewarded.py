"""The evaluation tab of an evaluation by rewards: curves of all prompts, means with their intervals, what each image got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..heatmap.text import printable
from ..measure.intervals import decimals, verdict
from . import words
from .figures import SERIES, figure
from .payload import plain

Records = Sequence[Mapping[str, Any]]


def is_rewarded(result: Mapping[str, Any]) -> bool:
    """Whether rewards judged."""
    return bool(result["protocol"].get("rewards"))


def curves(summary: Mapping[str, Any], records: Records, told: str) -> dict[str, Any]:
    """One chart for each reward: each prompt's mean, from the lowest to the highest."""
    figures = []
    for i, name in enumerate(summary):
        of_prompts: dict[Any, list[float]] = {}
        for record in records:
            if name in record["rewards"]:
                of_prompts.setdefault(record["prompt_index"], []).append(record["rewards"][name])
        means = sorted(float(np.mean(values)) for values in of_prompts.values())
        trace = {
            "type": "scatter",
            "mode": "lines+markers" if len(means) <= 60 else "lines",
            "name": name,
            "x": list(range(1, len(means) + 1)),
            "y": means,
            "line": {"color": SERIES[i % len(SERIES)], "width": 2.2},
            "showlegend": False,
            "hovertemplate": "%{y:.4~g}<extra></extra>",
        }
        says = f"mean of each prompt's images, from the lowest prompt to the highest · {told}"
        shown = figure(
            printable(str(name)), says, [trace], x="prompt", y="reward", values=np.array(means)
        )
        figures.append(shown)
    return plain({"figures": figures})


def table(
    summary: Mapping[str, Mapping[str, Any]], paired: Mapping[str, Mapping[str, Any]] | None
) -> str:
    """Every reward in figures."""
    heads = ["reward", "mean [95%]", "best of a prompt's images", "prompts", "images"]
    if paired:
        heads = ["reward", "before", "after [95%]", *heads[2:], "change [95%]"]
    rows = []
    for name, row in summary.items():
        digits = decimals((row["mean"], row["best"]))
        cells = [
            escape(printable(str(name))),
            _interval("", [row[key] for key in ("mean", "low", "high")], f".{digits}f"),
            _shown(row["best"], f".{digits}f"),
            escape(str(row["prompts"])),
            escape(str(row["images"])),
        ]
        if paired:
            change = paired.get(name) or dict.fromkeys(("change", "low", "high"))
            sure = {1: "up", -1: "down", 0: ""}[verdict(change["low"], change["high"])]
            cells.insert(1, _shown(change.get("before"), f".{digits}f"))
            moved = [change[key] for key in ("change", "low", "high")]
            cells.append(_interval(sure, moved, f"+.{digits}f"))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def said(record: Mapping[str, Any]) -> str:
    """The rewards of an image, or why it has none."""
    if record.get("fault"):
        return str(record["fault"])
    return ", ".join(f"{name} {_shown(value)}" for name, value in record["rewards"].items())


def _interval(kind: str, values: Sequence[Any], style: str) -> str:
    """A value, its class, and its interval."""
    value, low, high = (_shown(one, style) for one in values)
    return f'<b class="{kind}">{value}</b> <small>[{low}, {high}]</small>'


def _shown(value: Any, style: str = ".4g") -> str:
    known = isinstance(value, int | float)
    return format(value, style).replace("-", words.MINUS) if known else "–"
