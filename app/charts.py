"""Which curves the training tab shows of a run, and how to read them. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run_folder.pace import WINDOW, heldout_falls
from .figures import BLUE, SERIES, Metrics, band, column, curve, figure, smooth, spans


@dataclass(frozen=True)
class Chart:
    """One small chart of the training page.

    Attributes:
        title: what it shows.
        unit: of its values.
        says: how to read it, one line; {samples} stands for images or answers.
        names: metrics; one that ends with "*" stands for all that begin so. Absent ones are left out.
    """

    title: str
    unit: str
    says: str
    names: tuple[str, ...]


CHARTS = (
    Chart(
        "Reward parts", "reward", "each part that is trained on, before its weight", ("reward/*",)
    ),
    Chart("Answer length", "tokens", "of an answer, its end token included", ("answer_length",)),
    Chart(
        "Cut-off answers",
        "share of answers",
        "those that reached the longest length allowed",
        ("truncated",),
    ),
    Chart("Entropy", "nats per token", "falling = the policy makes up its mind", ("entropy",)),
    Chart("KL to the reference", "nats per token", "how far from the frozen model", ("kl",)),
    Chart(
        "Clipped tokens",
        "share of tokens",
        "those whose update was cut off; 0 with one update per rollout",
        ("clip_frac",),
    ),
    Chart(
        "Groups without a lesson",
        "share of groups",
        "those whose {samples} all got the same reward",
        ("zero_spread",),
    ),
    Chart(
        "Where the credit goes",
        "share of credit",
        "what the 20% of tokens that have most of it hold",
        ("credit_top20",),
    ),
    Chart(
        "Signed contrast", "nats", "mean of log p(prompt) − log p(negative)", ("signed_contrast",)
    ),
    Chart(
        "Credit against the truth",
        "score",
        "how well credit finds the objects that the prompt asks for",
        ("truth/*", "credit_truth/*"),
    ),
    Chart(
        "Critic",
        "share",
        "variance of the reward that it explains of new images, and how far it is believed",
        ("critic/explained", "critic/weight"),
    ),
    Chart(
        "Diversity",
        "share of tokens",
        "positions where two images of a prompt differ",
        ("diversity",),
    ),
)


def training_figures(metrics: Metrics) -> list[dict[str, Any]]:
    """The charts of one run: reward first, then those of `CHARTS` that have something to show."""
    if not metrics:
        return []
    samples = "answers" if _present(metrics, ["answer_length"]) else "images"
    figures = [reward_figure(metrics, samples), *heldout_figures(metrics)]
    for chart in CHARTS:
        names = _present(metrics, chart.names)
        if chart.title == "Reward parts" and len(names) < 2:
            continue  # one part is the reward
        traces = [
            trace
            for i, name in enumerate(names)
            for trace in curve(
                column(metrics, "step"),
                column(metrics, name),
                name=name.partition("/")[2] or name,
                colour=SERIES[i % len(SERIES)],
                legend=len(names) > 1,
            )
        ]
        if traces:
            says = chart.says.format(samples=samples)
            values = np.concatenate([column(metrics, name) for name in names])
            figures.append(figure(chart.title, says, traces, y=chart.unit, values=values))
    return figures


def heldout_figures(metrics: Metrics) -> list[dict[str, Any]]:
    """One chart for each held-out part of the reward, with the steps shaded at which it fell while the reward rose."""
    names = _present(metrics, ["heldout/*"])
    steps, figures = column(metrics, "step"), []
    for i, (name, fell) in enumerate(zip(names, _fell(metrics, names), strict=True)):
        part, colour = name.partition("/")[2], SERIES[(i + 1) % len(SERIES)]
        values, warned = column(metrics, name), spans(steps, fell)
        says = "never trained on: it shows what the reward itself cannot"
        if warned:
            says += f"; shaded: the reward rose and {part} fell, over {WINDOW} steps"
        traces = curve(steps, values, name=part, colour=colour, legend=False)
        shown = figure(f"Held out: {part}", says, traces, y="reward", values=values)
        shown["layout"]["shapes"] = warned
        figures.append(shown)
    return figures


def _fell(metrics: Metrics, names: Sequence[str]) -> NDArray[np.bool_]:
    """(parts, steps): where training warned that a held-out part fell, and it was this one by the same rule; where lines were
    left out of a long run the rule sees those that are there."""
    flags = column(metrics, "heldout_falls") == 1.0
    found = np.tile(flags, (len(names), 1))
    if len(names) < 2:
        return found
    reward = column(metrics, "reward").tolist()
    parts = {name: column(metrics, name).tolist() for name in names}
    for at in np.flatnonzero(flags):
        window = slice(max(0, at + 1 - WINDOW), at + 1)
        latest = {name: part[window] for name, part in parts.items()}
        falls = heldout_falls(reward[window], latest)
        found[:, at] = [name in falls for name in names]
    return found


def reward_figure(metrics: Metrics, samples: str = "images") -> dict[str, Any]:
    """Reward with its smoothed course, and a band where the run knows its spread: one to both sides."""
    steps, reward = column(metrics, "step"), column(metrics, "reward")
    says, traces, spread = f"mean of the step's {samples}", [], np.zeros(0)
    if _present(metrics, ["reward_spread"]):
        spread = np.nan_to_num(smooth(column(metrics, "reward_spread")))
        middle = smooth(reward)
        low, high = middle - spread, middle + spread
        if _within_unit(metrics):
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
        traces += band(steps, low, high, BLUE, "spread within a group, smoothed")
        says += "; the band is the spread within a group, which training feeds on"
    traces += curve(steps, reward, name="reward", colour=BLUE, legend=False)
    values = np.concatenate([reward, spread[spread > 0]])
    return {**figure("Reward", says, traces, y="reward", values=values), "wide": True}


def _within_unit(metrics: Metrics) -> bool:
    """Whether the reward can only lie between 0 and 1: it is GenEval's share of right images alone."""
    same = np.array_equal(column(metrics, "reward"), column(metrics, "reward/geneval"))
    return same and _present(metrics, ["reward/*"]) == ["reward/geneval"]


def _present(metrics: Metrics, patterns: Sequence[str]) -> list[str]:
    """The metrics that fit, in the order of their first appearance, with at least one number."""
    known = list(
        dict.fromkeys(key for row in metrics for key, value in row.items() if value is not None)
    )
    return [
        name
        for name in known
        if any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)
    ]
