"""From numbers to curves and bars: plotly figures as plain mappings, which the page draws in place. Reads no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run_folder.checks import is_number

POINTS = 400  # most points of a curve that are sent
AXES = {"step": "step", "images": "images", "time": "time"}
CLOCKS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
WHOLE = ("step", "prompt", "images")  # axes whose numbers are counts
BLUE, RED, PURPLE, ORANGE, GREEN, GREY = (
    "#2f7fc1",
    "#c8453c",
    "#7b5ea7",
    "#d98a1f",
    "#2c9a84",
    "#8a8f9c",
)
# Okabe and Ito's colours, in an order that keeps neighbours apart for colour-blind readers too
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f9c", "#b8a800")

Metrics = Sequence[Mapping[str, Any]]


def comparison_figure(
    runs: Mapping[str, Sequence[Metrics]],
    metric: str,
    title: str,
    says: str,
    *,
    styles: Mapping[str, Mapping[str, Any]],
    axis: str = "step",
    over: int = 0,
) -> dict[str, Any]:
    """One curve per method: the mean over its seeds, with a band from the lowest to the highest.

    Args:
        runs: {method: metrics of each of its seeds}.
        metric: which one.
        title, says: above the chart.
        styles: {method: colour and dash of its line}.
        axis: one of `AXES`; of several seeds the mean of it.
        over: about how many steps are averaged; 0 = more of longer runs.
    """
    found = []
    for method, seeds in runs.items():
        steps, values = aligned(seeds, metric)
        places = steps if axis == "step" else along(seeds, axis, steps)
        known = np.isfinite(places)
        if known.any():
            found.append((method, places[known], values[:, known]))
    if not found:
        return empty_figure(title, says, "No chosen run has this curve.")
    named, unit = AXES[axis], 1.0
    if axis == "time":
        longest = max(float(places[-1]) for _, places, _ in found)
        named, unit = next((n, u) for n, u in CLOCKS if longest >= 2 * u or u == 1.0)
    traces: list[dict[str, Any]] = []
    for method, places, values in found:
        style = styles[method]
        smoothed = np.stack([smooth(row, over) for row in values])
        if len(values) > 1:
            edges = smoothed.min(0), smoothed.max(0)
            traces += band(places / unit, *edges, style["color"], f"{method}, all seeds")
        drawn = line(places / unit, smoothed.mean(0), method, style["color"], legend=True)
        drawn["line"] |= style
        drawn |= {} if over == 1 else {"meta": f"{method}, smoothed"}
        traces.append(drawn)
    values = np.concatenate([values.ravel() for _, _, values in found])
    shown = figure(title, says, traces, x=named, y=metric, values=values)
    return {**shown, "wide": True}


def along(seeds: Sequence[Metrics], axis: str, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) images or seconds since the start at these steps, the mean over the seeds; NaN where nobody knows."""
    rows = []
    for seed in seeds:
        told = column(seed, "step")
        if axis == "images":
            counted = column(seed, "samples")
        else:  # where lines were left out, a step stands for those before it
            counted = np.cumsum(column(seed, "time/step") * np.diff(told, prepend=0.0))
        table = dict(zip(told, counted, strict=True))
        rows.append([table.get(step, math.nan) for step in steps])
    return np.array(rows, dtype=np.float64).mean(0)


def task_bars(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]],
    says: str,
    colours: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Bars per task with 95% intervals, one colour per run.

    Args:
        scores: {run: {task: {correct, low, high}}}.
        says: how to read it.
        colours: {run: colour}; None = in the order of the runs.
    """
    traces = []
    for i, (name, tasks) in enumerate(scores.items()):
        values = [number(row.get("correct")) for row in tasks.values()]
        highs = [number(row.get("high")) for row in tasks.values()]
        lows = [number(row.get("low")) for row in tasks.values()]
        trace = {
            "type": "bar",
            "name": name,
            "x": [task.replace("_", " ") for task in tasks],
            "y": values,
            "marker": {"color": colours[name] if colours else SERIES[i % len(SERIES)]},
            "showlegend": len(scores) > 1,
            "hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>",
        }
        if not np.isnan([*lows, *highs]).all():  # where no interval is known, none is drawn
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, h - v) for h, v in zip(highs, values, strict=True)],
                "arrayminus": [max(0.0, v - w) for w, v in zip(lows, values, strict=True)],
                "color": GREY,
                "thickness": 1.4,
                "width": 3,
            }
        traces.append(trace)
    found = figure("Correct images by task", says, traces, x="task", y="share correct")
    found["layout"] |= {"bargap": 0.28, "bargroupgap": 0.08}
    found["layout"]["yaxis"] |= {"range": [0, 1.04], "tickformat": ".0%"}
    return {**found, "wide": True}


def empty_figure(title: str, says: str, reason: str) -> dict[str, Any]:
    """A chart without anything to draw, which says so in its frame."""
    words = {"text": reason, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    hidden = {"visible": False}
    shown = figure(title, says, [], y="")
    shown["layout"] |= {
        "annotations": [{**words, "showarrow": False, "font": {"size": 14}}],
        "xaxis": hidden,
        "yaxis": hidden,
    }
    return {**shown, "wide": True}


def spans(steps: NDArray[np.float64], flags: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """A pale area over every stretch of steps that is flagged, as shapes of a layout."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    area = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}}
    return [
        {**area, "x0": steps[a] - 0.5, "x1": steps[b - 1] + 0.5, "fillcolor": RED, "opacity": 0.14}
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def figure(
    title: str,
    says: str,
    traces: list[dict[str, Any]],
    *,
    x: str = "step",
    y: str,
    values: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """One chart as the page wants it.

    Args:
        title, says: above it.
        traces: of plotly.
        x, y: what the axes count; whole numbers alone stand on that of steps, prompts or images.
        values: what is drawn; where all are the same, the y axis gets a range that makes sense.
    """
    whole = {"tickformat": ",d"} if x in WHOLE else {}
    layout = {
        "xaxis": {"title": {"text": x}, **whole},
        "yaxis": {"title": {"text": y}, **({} if values is None else level_range(values))},
    }
    return {"title": title, "says": says, "data": traces, "layout": layout, "wide": False}


def curve(
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    name: str,
    colour: str,
    legend: bool,
) -> list[dict[str, Any]]:
    """The values, pale, and their smoothed course."""
    pale = line(steps, values, f"{name}, this step", colour, legend=False)
    pale |= {"opacity": 0.28, "line": {"color": colour, "width": 1}}
    smoothed = line(steps, smooth(values), name, colour, legend=legend)
    smoothed["meta"] = f"{name}, smoothed"  # in the table of its numbers
    smoothed["hovertemplate"] = hover(smoothed["meta"])
    return [pale, smoothed]


def line(
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    name: str,
    colour: str,
    *,
    legend: bool,
) -> dict[str, Any]:
    keep = thinned(len(steps))
    return {
        "type": "scatter",
        "mode": "lines" if len(steps) > 1 else "markers",
        "name": name,
        "x": positions(steps[keep]),
        "y": listed(values[keep]),
        "line": {"color": colour, "width": 2.2},
        "showlegend": legend,
        "hovertemplate": hover(name),
    }


def hover(name: str) -> str:
    """What the box under the pointer says of a line; a name is text and no markup or template."""
    return "%{y:.4~g}<extra>" + name.replace("<", "&lt;").replace("%{", "%\u200b{") + "</extra>"


def band(
    steps: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    colour: str,
    name: str,
) -> list[dict[str, Any]]:
    """A pale area between two courses."""
    keep = thinned(len(steps))
    x = positions(steps[keep])
    edge = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    fill = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.16)"
    return [
        {**edge, "name": f"{name}, from", "x": x, "y": listed(low[keep])},
        {
            **edge,
            "name": f"{name}, to",
            "x": x,
            "y": listed(high[keep]),
            "fill": "tonexty",
            "fillcolor": fill,
        },
    ]


def smooth(values: NDArray[np.float64], over: int = 0) -> NDArray[np.float64]:
    """Exponential moving average over about so many values, corrected for its start; 0: longer runs are smoothed more.
    Gaps are bridged."""
    keep = 1 - 1 / (over or max(1.0, min(30.0, len(values) / 20)))
    total = weight = 0.0
    smoothed = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        if weight:
            smoothed[i] = total / weight
    return smoothed


def aligned(
    seeds: Sequence[Metrics], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The steps that all seeds have (S,), and their values (seeds, S)."""
    tables = [
        {int(row["step"]): number(row[metric]) for row in seed if row.get(metric) is not None}
        for seed in seeds
    ]
    steps = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    values = np.array([[table[step] for step in steps] for table in tables], dtype=np.float64)
    return np.array(steps, dtype=np.float64), values


def column(metrics: Metrics, name: str) -> NDArray[np.float64]:
    """The values of one metric, NaN where a step has none."""
    return np.array([number(row.get(name)) for row in metrics], dtype=np.float64)


def number(value: Any) -> float:
    """A number, NaN for anything else."""
    return float(value) if isinstance(value, int | float) and is_number(value) else math.nan


def level_range(values: NDArray[np.float64]) -> dict[str, Any]:
    """The y axis of values that never change, which would else get a senseless range: as part of it."""
    known = values[np.isfinite(values)]
    if not len(known) or np.ptp(known) > 1e-6 * max(1.0, float(np.abs(known).max())):
        return {}
    level = float(known[0])
    return {"range": sorted((0.0, 2 * level)) if level else [-0.05, 1.0]}


def listed(values: NDArray[np.float64]) -> list[float | None]:
    """Five significant digits are enough for a curve; what is not finite becomes a gap."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def positions(places: NDArray[np.float64]) -> list[float]:
    """Places on the x axis, to a thousandth."""
    return [round(float(place), 3) for place in places]


def thinned(count: int) -> NDArray[np.int64]:
    """At most POINTS places out of `count`, the first and the last among them."""
    if count <= POINTS:
        return np.arange(count)
    return np.rint(np.linspace(0, count - 1, POINTS)).astype(np.int64)
