"""What the command line shows: progress with live reward, tables, plain lines. Decides nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..errors import RunError
from ..measure.intervals import decimals, with_interval
from ..run_folder.pace import RECENT, recent, seconds_left
from ..run_folder.reader import RunReader

# a file or pipe has no width of its own, and tables should not be squeezed into 80 columns there
_OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)

LINE_EVERY = 60.0  # seconds; a long step is told when it is over


def duration(seconds: float) -> str:
    """As a person says it: 50 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def say(line: str) -> None:
    """One line for a person."""
    _OUT.print(line, markup=False)


def plain(text: str) -> None:
    """Text for a person or a pipe, as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _bar(left: ProgressColumn | None = None) -> Progress:
    """Progress; `left` shows the time that is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        left or TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=_OUT,
        disable=not _OUT.is_terminal,
    )


class TrainingProgress:
    """A bar with the running reward; without a terminal, a line at the first step, every twentieth of the run, and once a
    minute. Mean and time left are those of the app's page: of the run's last steps, also of those before a resume."""

    def __init__(self, bar: Progress, name: str, total: int, path: Path | None = None) -> None:
        self.bar, self.name, self.total, self.path = bar, name, total, path
        self.task = bar.add_task(f"training {name}", total=total, note="", left="")
        self.rows: list[Mapping[str, float]] | None = None  # the last steps; None = none was told
        self.told: float | None = None  # when there was a line

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called after each step."""
        before = self._before(step) if self.rows is None else self.rows
        self.rows = [*before, metrics][-RECENT:]
        rewards = recent(self.rows, "reward")
        reward = sum(rewards) / len(rewards) if rewards else metrics["reward"]
        of = f" (mean of {len(rewards)} steps)" if len(rewards) > 1 else ""
        note = f"reward {reward:.3f}{of}, {metrics['time/step']:.2f} s a step"
        left = duration(seconds_left(self.rows, self.total - step) or 0.0)
        self.bar.update(self.task, completed=step, note=note, left=left)
        now = time.monotonic()
        due = step % max(1, self.total // 20) == 0 or step == self.total
        if self.bar.disable and (due or self.told is None or now - self.told >= LINE_EVERY):
            self.told = now
            say(f"{self.name}: step {step} of {self.total}, {note}, about {left} left")

    def _before(self, step: int) -> list[Mapping[str, float]]:
        """The metrics of the steps before this one, where a run goes on; what cannot be read is none."""
        if self.path is None or step <= 1:
            return []
        try:
            metrics = RunReader(self.path, strict=False).metrics(strict=False)
        except RunError:
            return []
        return [row for row in metrics if row.get("step", step) < step]

    def warn(self, line: str) -> None:
        """A line that stays above the bar."""
        self.bar.console.print(f"warning: {line}", markup=False)


@contextmanager
def training(config: Any) -> Iterator[TrainingProgress]:
    """Progress of one training run."""
    from ..api.launch import run_path

    with _bar(TextColumn("{task.fields[left]}")) as bar:
        path = run_path(config)
        yield TrainingProgress(bar, config.train.name or "run", config.train.steps, path)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar driven by (done, of)."""
    with _bar() as shown:
        task = shown.add_task(what, total=None, note="")
        told = [0.0]
        start: list[float] = []  # when the first call came, and what was done by then

        def progress(done: int, of: int) -> None:
            shown.update(task, completed=done, total=of)
            if not start:
                start[:] = time.monotonic(), done
            if shown.disable and (done == of or done / of >= told[0] + 0.25):
                told[0] = done / of
                pace = (done - start[1]) / max(time.monotonic() - start[0], 1e-9)
                left = f", about {duration((of - done) / pace)} left" if pace and done < of else ""
                say(f"{what}: {done} of {of}{left}")

        yield progress


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
    """One bar per stage, driven by (stage, done, of, values)."""
    with _bar() as shown:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, of: int, values: Mapping[str, float]) -> None:
            note = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=of, note=note)
            shown.update(tasks[stage], completed=done, note=note)
            if shown.disable:
                say(f"{stage}: {done} of {of} {note}")

        yield progress


def table(title: str, values: Mapping[str, Any]) -> None:
    """Two columns: name and value."""
    shown = Table(title=title, show_header=False, title_justify="left")
    for name, value in values.items():
        shown.add_row(escape(name), f"{value:,}" if isinstance(value, int) else escape(str(value)))
    _OUT.print(shown)


def rows(title: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """A table of dicts with the same keys."""
    shown = Table(title=title, title_justify="left")
    for name in lines[0] if lines else ():
        shown.add_column(escape(str(name)))
    for line in lines:
        shown.add_row(*(escape(str(value)) for value in line.values()))
    _OUT.print(shown)


def change_rows(report: Any) -> list[dict[str, Any]]:
    """Every task before and after, with the interval of its change; none where one model was evaluated."""
    return [
        {
            "task": task,
            "before": f"{row['before']:.3f}",
            "after": f"{row['after']:.3f}",
            "change [95% interval]": with_interval(row["change"], row["low"], row["high"], "+.3f"),
        }
        for task, row in (report.changes or {}).items()
    ]


def _reward_rows(report: Any) -> list[dict[str, Any]]:
    """Every reward with its interval, and what changed where two models were compared."""
    lines = []
    for name, row in report.evaluation.summary().items():
        style = f".{decimals((row['mean'], row['best']))}f"
        line = {
            "reward": name,
            "mean [95% interval]": with_interval(row["mean"], row["low"], row["high"], style),
            "best of k": f"{row['best']:{style}}",
            "images": row["images"],
        }
        if report.changes is not None:
            change = report.changes.get(name, {})
            moved, low, high = (change.get(key) for key in ("change", "low", "high"))
            shown = "unknown" if moved is None else with_interval(moved, low, high, f"+{style}")
            line["change [95% interval]"] = shown
        lines.append(line)
    return lines


def show_evaluation(report: Any) -> None:
    """Scores by task or reward with intervals, and what changed where two models were compared."""
    if report.evaluation.protocol.rewards:
        prompts = len(report.evaluation.rows())
        _show_scores(report, _reward_rows(report), prompts)
        return
    summary = report.evaluation.summary()
    lines = change_rows(report) or [
        {
            "task": task,
            "correct [95% interval]": with_interval(row["correct"], row["low"], row["high"]),
            "partial": "unknown" if row["partial"] is None else f"{row['partial']:.3f}",
            "pass@k": f"{row['pass_at_k']:.3f}",
            "images": row["images"],
        }
        for task, row in summary.items()
    ]
    _show_scores(report, lines, summary["overall"]["prompts"])


def _show_scores(report: Any, lines: Sequence[Mapping[str, Any]], prompts: int) -> None:
    """The table, how it came about, and where it was written."""
    protocol = report.evaluation.protocol.to_dict()
    del protocol["images_per_prompt"]
    rewards = protocol.pop("rewards", None)
    group = report.evaluation.images_each()
    rows(f"{report.name} (k = {group})", lines)
    settings = ", ".join(f"{name} {value}" for name, value in protocol.items() if value is not None)
    if rewards:
        if protocol["cfg_scale"] is None:
            settings = "sampled in an unknown way"
        settings = f"{settings}, judged by {report.evaluation.protocol.judges()}"
    elif protocol["detector"] is None:
        settings = "sampled and judged in an unknown way"
    if negative := report.evaluation.about.get("negative"):
        settings = f"{settings}, negative {negative!r}"
    noun = "prompt" if prompts == 1 else "prompts"
    say(f"protocol: {prompts} {noun} x {group} images, {settings}")
    if report.path:
        say(f"written: {report.path}")
        say(f"page:    {report.page}")


def warning(line: str) -> None:
    """A line that should not be missed, also where the output goes into a pipe."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {line}", markup=False)
