"""The picture of a comparison: reward against samples, final scores by task, paired differences. Computes no statistic."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..intervals import running_mean, t_interval, window_of

Curve = tuple[list[float], list[float]]  # samples, reward of every step


def draw(found: Mapping[str, Any], curves: Mapping[str, Sequence[Curve]]) -> bytes:
    """A PNG.

    Args:
        found: the content of comparison.json.
        curves: {method: one curve per seed}.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    palette = colormaps["tab10"]
    colors: dict[str, Any] = {name: palette(i % palette.N) for i, name in enumerate(curves)}
    colors[found["baseline"]] = "0.45"
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(5, 6, 3))
    _draw_curves(left, found, curves, colors)
    _draw_bars(middle, found, colors)
    _draw_differences(right, found, colors)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def sampled(found: Mapping[str, Any]) -> str:
    """What the runs of a comparison sampled."""
    return "answers" if "answers" in found["evaluation"] else "images"


def _draw_curves(
    axis: Any,
    found: Mapping[str, Any],
    curves: Mapping[str, Sequence[Curve]],
    colors: Mapping[str, Any],
) -> None:
    """Running means with 95% bands over seeds, where every seed has the step; a band may leave the picture.

    The baseline lies on top. The more bands, the fainter: bands upon bands would hide the curves.
    """
    shown: list[float] = []
    baseline = found["baseline"]
    faint = min(0.12, 0.4 / len(curves))
    for name, runs in curves.items():
        steps = min(len(samples) for samples, _ in runs)
        samples = np.mean([samples[:steps] for samples, _ in runs], axis=0)
        smooth = [running_mean(rewards, window_of(len(rewards)))[:steps] for _, rewards in runs]
        bands = np.asarray([t_interval(column) for column in zip(*smooth, strict=True)])
        shown.extend(bands[:, 0])
        thick, layer = (2.2, 3) if name == baseline else (1.4, 2)
        axis.plot(
            samples, bands[:, 0], color=colors[name], label=name, linewidth=thick, zorder=layer
        )
        alpha = 0.15 if name == baseline else faint
        axis.fill_between(
            samples, bands[:, 1], bands[:, 2], color=colors[name], alpha=alpha, linewidth=0
        )
    margin = 0.15 * (max(shown) - min(shown)) or 0.1
    axis.set_ylim(min(shown) - margin, max(shown) + margin)
    axis.axhline(found["target"], color="0.6", linestyle=":", linewidth=1)
    axis.set_xlabel(f"{sampled(found)} sampled")
    axis.set_ylabel("training reward")
    axis.set_title("mean over seeds, 95% band, dotted: target", fontsize=10)
    axis.grid(color="0.92")
    axis.legend(fontsize=8, frameon=False)


def _draw_bars(axis: Any, found: Mapping[str, Any], colors: Mapping[str, Any]) -> None:
    """A group of bars with intervals for each task held-in, and for held-out compositions as a whole."""
    methods = {name: dict(method["tasks"]) for name, method in found["methods"].items()}
    for name, bars in methods.items():  # {task: (mean, low, high)}
        if told := found["methods"][name].get("held_out"):
            bars["held-out, all"] = (told["mean"], *told["interval"])
    groups = list(next(iter(methods.values())))
    width = 0.8 / len(methods)
    for i, (name, bars) in enumerate(methods.items()):
        places = np.arange(len(groups)) + (i - (len(methods) - 1) / 2) * width
        means, lows, highs = np.asarray([bars[group] for group in groups]).T
        axis.bar(places, means, width * 0.92, color=colors[name])
        axis.vlines(places, lows, highs, color="0.1", linewidth=1)
    axis.set_xticks(range(len(groups)), groups, fontsize=8, rotation=20)
    axis.set_ylim(0, 1)
    axis.set_title(f"share of {sampled(found)} that are right, held-in by task", fontsize=10)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)


def _draw_differences(axis: Any, found: Mapping[str, Any], colors: Mapping[str, Any]) -> None:
    """Paired differences to the baseline with their intervals: held-in filled, held-out (if there is) hollow."""
    pairs = [d for d in found["differences"] if d["b"] == found["baseline"]]
    for row, pair in enumerate(pairs):
        for key, shift, face in (
            ("held_in", -0.12, colors[pair["a"]]),
            ("held_out", 0.12, "white"),
        ):
            if key not in pair:
                continue
            told = pair[key]
            axis.hlines(
                row + shift, told["low"], told["high"], color=colors[pair["a"]], linewidth=1.5
            )
            axis.plot(
                told["mean"], row + shift, "o", color=colors[pair["a"]], mfc=face, markersize=5
            )
    axis.axvline(0, color="0.6", linewidth=1)
    axis.locator_params(axis="x", nbins=4)
    axis.set_yticks(range(len(pairs)), [pair["a"] for pair in pairs], fontsize=8)
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    hollow = "\nfilled: held-in, hollow: held-out" if any("held_out" in p for p in pairs) else ""
    axis.set_title(f"difference to {found['baseline']}, paired{hollow}", fontsize=9)
    axis.grid(axis="x", color="0.92")
