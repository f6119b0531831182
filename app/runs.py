"""The runs that the app shows: one folder, nothing outside of it. Opens runs by name, remembers what was recorded
when, and puts errors into words. Draws nothing."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from statistics import fmean, pvariance
from sys import intern
from typing import Any, ParamSpec, TypeVar

from ..errors import RunError, UserError, shortened
from ..heatmap.text import spoken
from ..run_folder.checks import is_number
from ..run_folder.layout import contained
from ..run_folder.reader import RunReader, list_runs
from ..run_folder.status import RunStatus, whole
from .tail import MetricsTail

T = TypeVar("T")
P = ParamSpec("P")
MOST_GROUPS, MOST_SAMPLES = 1000, 64  # of a step, and of a group, that are shown
MOST_LETTERS = 1 << 18  # of the prompts of a step that is remembered
LONGEST_NAME = 255  # letters: what file systems take
REMEMBERED_RUNS = 8  # whose recorded prompts and metrics are kept in memory

STATES = {
    "running": "running",
    "finished": "finished",
    "stopped": "stopped by hand",
    "failed": "failed",
    "killed": "was killed",
    "unreadable": "cannot be read",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One group of samples of one recorded step.

    Attributes:
        group: its number in the step.
        prompt, negative: its prompts.
        probe: it comes back with the same noise at every recorded step and is not trained on.
        places: of its samples in the step, at most `MOST_SAMPLES` of them.
        rewards: of these, as far as they were finite.
        many: how many samples it has.
    """

    group: int
    prompt: str
    negative: str | None
    probe: bool
    places: tuple[int, ...]
    rewards: tuple[float, ...]
    many: int = 0

    @property
    def spread(self) -> float:
        """Variance of the rewards."""
        return pvariance(self.rewards) if self.rewards else 0.0


class RunShelf:
    """The runs folder.

    Args:
        root: a folder of runs, or one run; it may be made later.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self._recorded: OrderedDict[Path, dict[tuple[int, int], list[Recorded]]] = OrderedDict()
        self._tails: OrderedDict[Path, MetricsTail] = OrderedDict()
        self._lock = threading.Lock()

    def statuses(self) -> list[RunStatus]:
        """All runs, running ones first. One whose name is no text cannot be asked for, and is unreadable."""
        found = list_runs(self.root, within=self.root)
        return [
            run
            if (name := sayable(run.path.name)) == run.path.name
            else RunStatus(self.root / name, "unreadable", message="its name is no text")
            for run in found
        ]

    def choices(self, statuses: Sequence[RunStatus]) -> list[tuple[str, str]]:
        """(label, name) of every run, in order."""
        return [(f"{s.path.name}  ({STATES.get(s.state, s.state)})", s.path.name) for s in statuses]

    def open(self, name: object) -> RunReader:
        """The run of that name.

        Raises:
            RunError: no run was chosen, there is none of that name here, it leads out of the folder, or it cannot
                be read.
        """
        if not isinstance(name, str) or not name:
            raise RunError("no run is chosen")
        if len(name) > LONGEST_NAME:
            raise RunError(f"{name[:40]!r}... is longer than any name of a run")
        if Path(name).name != name or name.startswith(".") or set(sayable(name)) & {"\0", "\\"}:
            raise RunError(f"{name!r} is not the name of a run in this folder")
        path = self.root if self._is_run(self.root) and name == self.root.name else self.root / name
        if not contained(path, self.root).is_dir():
            raise RunError(f"{name!r} is not (or no longer) in {self.root}")
        return RunReader(path, within=self.root)

    def recorded(self, reader: RunReader, step: int) -> list[Recorded]:
        """The groups of one recorded step; remembered, because a film asks for all steps of a run."""
        try:
            key = step, reader.step_folder(step).stat().st_mtime_ns
        except OSError as error:
            raise RunError(f"{reader.path}: step {step} is not recorded (any more)") from error
        known = self._of_run(self._recorded, reader.path, {})
        if key not in known:
            found = groups_of(reader, step)
            if sum(len(group.prompt) + len(group.negative or "") for group in found) > MOST_LETTERS:
                return found
            known[key] = found
        return known[key]

    def metrics(self, reader: RunReader) -> list[dict[str, Any]]:
        """The metrics so far of a run that is looked at again and again; damaged lines are left out.

        Raises:
            RunError: they cannot be read.
        """
        return self._of_run(self._tails, reader.path, MetricsTail()).lines(reader)

    def _of_run(self, kept: OrderedDict[Path, T], run: Path, new: T) -> T:
        """What is remembered of a run, `new` at first; the runs that were not asked for the longest are forgotten."""
        with self._lock:
            found = kept.setdefault(run, new)
            kept.move_to_end(run)
            while len(kept) > REMEMBERED_RUNS:
                kept.popitem(last=False)
        return found

    @staticmethod
    def _is_run(path: Path) -> bool:
        return (path / "environment.json").is_file()


def groups_of(reader: RunReader, step: int) -> list[Recorded]:
    """The groups of one recorded step, in the order of recording; at most `MOST_GROUPS`.

    Raises:
        RunError: it cannot be read, or is not a recorded step.
    """
    found: dict[int, list[tuple[int, dict[str, object]]]] = {}
    many: Counter[int] = Counter()
    try:
        for place, sample in enumerate(reader.samples(step)):
            if not (whole(sample["group"]) and is_number(sample["reward"])):
                raise ValueError("group or reward: not a number")
            group = int(sample["group"])
            many[group] += 1
            if many[group] <= MOST_SAMPLES and (group in found or len(found) < MOST_GROUPS):
                found.setdefault(group, []).append((place, sample))
        return [
            Recorded(
                group=group,
                prompt=intern(spoken(members[0][1]["prompt"])),  # the same at hundreds of steps
                negative=None
                if (text := members[0][1]["negative"]) is None
                else intern(spoken(text)),
                probe=bool(members[0][1].get("probe")),
                places=tuple(place for place, _ in members),
                rewards=known_numbers(sample["reward"] for _, sample in members),
                many=many[group],
            )
            for group, members in found.items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
        folder = reader.step_folder(step)
        raise RunError(f"{folder}: not a recorded step: {error!r}") from error


def liveliest(groups: Sequence[Recorded]) -> Recorded:
    """The group with most to see: the widest spread of rewards, trained ones before probes."""
    return max(groups, key=lambda group: (group.spread, not group.probe))


def known_numbers(values: Iterable[Any]) -> tuple[float, ...]:
    """Those that are finite, of numbers that JSON holds."""
    return tuple(float(v) for v in values if v is not None and math.isfinite(v))


def mean_in_words(values: Iterable[Any]) -> str:
    """Two decimals of the mean of those that are finite; "n/a" if none is."""
    known = known_numbers(values)
    return f"{fmean(known):.2f}" if known else "n/a"


def sayable(text: str) -> str:
    """The text, with halves of characters (from a file's name, or JSON) as their escapes: they cannot be sent."""
    return text.encode("utf-8", "backslashreplace").decode()


def in_words(error: BaseException) -> str:
    """One line for the page. Errors that are not a user's are named by their kind."""
    text = shortened(" ".join(sayable(str(error)).split()))
    if isinstance(error, UserError):
        return text
    return f"unexpected {type(error).__name__}: {text}" if text else type(error).__name__


def or_in_words(answer: Callable[..., T]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """For every function that answers the page: where it fails, the page gets `answer(why, *its arguments)`, a note, and
    what is no user's error goes into the server's log."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def answered(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not isinstance(error, UserError | OSError):
                    logging.getLogger(__name__).exception("%s", function.__qualname__)
                return answer(in_words(error), *args, **kwargs)

        return answered

    return decorate
