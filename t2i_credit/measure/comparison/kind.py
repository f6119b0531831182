"""What a comparison of images and one of text do differently, behind one protocol; which one a recipe takes.

Everything else about a comparison (runs, seeds, processes, statistics, table, plots) is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ...errors import RunError
from ...run_folder.reader import RunReader

Report = Callable[[int, Mapping[str, float]], None]
Say = Callable[[str], None]
SPLITS = ("train", "heldout")  # of the embedded worlds: held-in, held-out
# A `Config` or a `TextConfig`: both have the sections model, prompts and train.
AnyConfig = Any


class EvaluationPlan(Protocol):
    """How every final model is evaluated; a frozen dataclass, whose fields go to the worker as JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def splits(self) -> Sequence[str]:
        """SPLITS, or the first of them where there is but one set of prompts."""
        ...

    def found(self, run: Path, split: str) -> dict[str, Any] | None:
        """The run's evaluation of this plan, or None; its `summary` has a row with "correct" for each task and "overall"."""
        ...

    def evaluate(self, run: Path, split: str) -> None:
        """Evaluates the newest model of a run and writes that into its folder."""
        ...


class Kind(Protocol):
    """A kind of recipe that can be compared.

    Attributes:
        name: what its recipes are for: images, text.
        figures: keys of an evaluation's overall row that are compared beside "correct".
    """

    name: str
    figures: Sequence[str]

    def plan(self, config: AnyConfig, **given: Any) -> EvaluationPlan:
        """An evaluation plan.

        Args:
            config: of the comparison's first recipe, whose guidance holds where none is given.
            given: fields of the plan, or prompts (how many), samples (of each), cfg_scale, source (a prompt file),
                detector; what is left out is usual.

        Raises:
            ConfigError: something is given that this kind has not.
        """
        ...

    def shared(self, config: AnyConfig) -> Mapping[str, Any]:
        """{key: value} of what all recipes of a comparison must agree on."""
        ...

    def samples_per_step(self, config: AnyConfig) -> int:
        """Images or answers that a step samples."""
        ...

    def passes(self, config: AnyConfig) -> int:
        """Forward passes per token and step, without loading a model."""
        ...

    def alone(self, config: AnyConfig) -> AnyConfig:
        """The configuration with metrics going nowhere but into the run folder."""
        ...

    def short(self, config: AnyConfig, *, steps: int, out: str) -> AnyConfig:
        """A run of so many steps in another folder, which keeps samples of the last step only."""
        ...

    def check(self, config: AnyConfig, evaluation: EvaluationPlan) -> None:
        """Builds what needs no model.

        Raises:
            UserError: a run of this configuration would fail at once, or its evaluation.
        """
        ...

    def train(
        self, config: AnyConfig, *, resume: bool = False, report: Report, warn: Say = print
    ) -> None:
        """Trains, or goes on where the run was.

        Raises:
            UserError: whatever is wrong, in one line.
        """
        ...


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        method: the recipe's short name.
        seed: of prompts and noise.
        kind: images or text.
        config: resolved; `train.out` and `train.name` say where the run lies.
    """

    method: str
    seed: int
    kind: Kind
    config: AnyConfig

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.config.train.out) / str(self.config.train.name)

    @property
    def config_file(self) -> Path:
        """The resolved configuration, from which the run is trained."""
        return Path(self.config.train.out) / "configs" / f"{self.config.train.name}.yaml"

    @property
    def log(self) -> Path:
        """What its commands print."""
        return Path(self.config.train.out) / "logs" / f"{self.config.train.name}.log"

    def state(self) -> str:
        """missing, or as the run's status says: finished, running, killed, stopped, failed; unreadable if it says
        nothing."""
        if not self.path.exists():
            return "missing"
        return RunReader(self.path, strict=False).status(strict=False).state

    def steps_left(self) -> int:
        """Steps that are still to be trained."""
        state = self.state()
        if state in ("missing", "finished"):
            return self.config.train.steps if state == "missing" else 0
        checkpoints = RunReader(self.path, strict=False).checkpoints()
        return self.config.train.steps - max(checkpoints, default=0)


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics of a run that was trained to its end.

    Raises:
        RunError: some are missing.
    """
    reader = RunReader(run.path)
    lines, steps = reader.metrics(), reader.status().total
    found: list[Any] = [line.get("step") for line in lines]
    if not found or found[-1] != steps or found != list(range(found[0], steps + 1)):
        raise RunError(
            f"{reader.path / 'metrics.jsonl'}: holds {len(found)} lines, up to step {found[-1] if found else 0}; this run "
            f"has {steps} steps: it is damaged; delete the run's folder to make it again"
        )
    return lines


def curve(run: Run) -> tuple[list[float], list[float]]:
    """(samples, reward) of every step of a run."""
    lines = metrics_of(run)
    return [line["samples"] for line in lines], [line["reward"] for line in lines]
