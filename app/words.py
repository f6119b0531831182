"""Small pieces of HTML and wording: the status of a run, empty states, errors. Everything that comes from a run or a
visitor is escaped here."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

from ..run_folder.pace import RECENT, recent, seconds_left
from ..run_folder.status import RunStatus
from .figures import number
from .runs import STATES

MINUS = "\N{MINUS SIGN}"


def notice(title: str, text: str = "", *, command: str = "", kind: str = "empty") -> str:
    """A calm box: what is missing or wrong, and what to do.

    Args:
        kind: "empty" or "error".
    """
    parts = [f"<strong>{escape(title)}</strong>"]
    parts += [f"<p>{escape(text)}</p>"] if text else []
    parts += [f"<code>{escape(command)}</code>"] if command else []
    role = ' role="alert"' if kind == "error" else ""
    return f'<div class="notice {kind}"{role}>{"".join(parts)}</div>'


def term(name: str) -> str:
    """A word with the "?" that explains it (static/terms.js); a name of ours, so nothing is escaped."""
    return f'{name}<button type="button" class="term" data-term="{name}" aria-label="what is {name}?"></button>'


def on_page(text: str) -> str:
    """A message of the command line as the page says it where it has a Resume button."""
    return re.sub(r"(?<!train )--resume\b", "the Resume button", text)


def train_command(root: Path) -> str:
    """How to start a run that the served folder will hold."""
    return f"t2i-credit train shapes/gcpo {quote(f'train.out={root}')}"


def no_runs(root: Path) -> str:
    """The empty state of a folder without runs."""
    return notice(
        "No run here yet",
        f"There is no run in {root}. Start one; it appears here by itself, after a moment.",
        command=train_command(root),
    )


def status_strip(status: RunStatus, metrics: Sequence[Mapping[str, Any]]) -> str:
    """State, progress, time left, throughput and reward of a run."""
    last = metrics[-1] if metrics else {}
    step, total = status.step or int(last.get("step", 0)), status.total
    share = min(1.0, step / total) if total else 0.0
    state = STATES.get(status.state, status.state)
    cells = [
        _reward_cell(metrics),
        ("Step", f"{step:,}<small> of {total:,}</small>" if total else f"{step:,}", ""),
        _time_cell(status, metrics),
        _work_cell(last),
    ]
    shown = "".join(
        f'<div class="figure" title="{escape(title)}"><span>{name}</span><b>{value}</b></div>'
        for name, value, title in cells
    )
    message = (
        f'<p class="said">{escape(status.message)}</p>'
        if status.message and status.state != "finished"
        else ""
    )
    return (
        f'<div class="status"><div class="state {escape(status.state)}"><i></i>{escape(state)}</div>{shown}</div>'
        f'<div class="progress" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-label="training progress">'
        f'<i style="width:{100 * share:.2f}%"></i></div>{message}'
    )


def time_left(status: RunStatus, metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds, from the median of the last steps; None if there is nothing to go by."""
    return seconds_left(metrics, status.total - status.step) if status.total else None


def duration(seconds: float) -> str:
    """Such as "12 s", "4 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def ago(when: float, now: float | None = None) -> str:
    """How long ago, in words."""
    return f"{duration(max(0.0, (now or time.time()) - when))} ago"


def signed(value: float) -> str:
    """Three decimals with a sign, as the command line and the report have them."""
    return f"{value:+.3f}".replace("-", MINUS)


def _reward_cell(metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """As the command line tells it: a mean, which says of how many steps."""
    last = recent(metrics, "reward")
    if not last:
        return "Reward", "–", ""
    mean = sum(last) / len(last)
    of = (
        f"Reward, mean of the last {len(last)} steps"
        if len(last) > 1
        else "Reward of the first step"
    )
    known = [reward for row in metrics if math.isfinite(reward := number(row.get("reward")))]
    if len(known) < 2 * RECENT:
        return of, f"{mean:.3f}", ""
    change = mean - sum(known[:RECENT]) / RECENT
    kind, since = ("up" if change >= 0 else "down"), f"since the first {RECENT}"
    return (
        of,
        f'{mean:.3f}<small class="{kind}"> {signed(change)}</small><small> {since}</small>',
        "",
    )


def _time_cell(status: RunStatus, metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    if status.state == "running":
        left = time_left(status, metrics)
        return "Time left", "–" if left is None else duration(left), "from the last 20 steps"
    took = _seconds(metrics) or max(0.0, status.heartbeat - status.started)
    return "Took", duration(took), f"all steps together; ended {ago(status.heartbeat)}"


def _seconds(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Of all steps, those before a resume too; where lines were left out, a step stands for those before it."""
    total, before = 0.0, 0.0
    for row in metrics:
        step, seconds = number(row.get("step")), number(row.get("time/step"))
        if math.isfinite(step) and math.isfinite(seconds):
            total, before = total + seconds * max(0.0, step - before), step
    return total


def _work_cell(last: Mapping[str, Any]) -> tuple[str, str, str]:
    if "answer_length" in last:
        length = _amount(last["answer_length"], "{:,.1f}") + "<small> tokens</small>"
        return "Answer length, last step", length, "mean of the last step"
    speed = _amount(last.get("time/tokens_per_second"), "{:,.0f}") + "<small> tokens/s</small>"
    return "Throughput, last step", speed, "image tokens sampled and trained on"


def _amount(value: Any, form: str) -> str:
    return form.format(value) if math.isfinite(number(value)) else "–"
