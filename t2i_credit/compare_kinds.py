"""What a comparison of images and one of text do differently, behind one protocol; which one a recipe takes.

Everything else about a comparison (runs, seeds, processes, statistics, table, plots) is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from .config_types import Section

Settings = TypeVar("Settings", bound=Section)
Report = Callable[[int, Mapping[str, float]], None]
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
        self,
        config: AnyConfig,
        *,
        resume: bool = False,
        report: Report,
        warn: Callable[[str], None] = print,
    ) -> None:
        """Trains, or goes on where the run was.

        Raises:
            UserError: whatever is wrong, in one line.
        """
        ...


def with_section(config: Settings, section: str, **changes: Any) -> Settings:
    """The configuration with keys of one section changed."""
    changed = getattr(config, section).model_copy(update=changes)
    return config.model_copy(update={section: changed})


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[Kind, AnyConfig]:
    """The kind of a recipe and its configuration.

    Raises:
        ConfigError: one line.
    """
    from .compare_images import Images
    from .compare_text import Text
    from .config import load_config
    from .text_config import load_text_config

    text = load_text_config(recipe, overrides)
    if text is None:
        return Images(), load_config(recipe, overrides)
    config, origin = text
    return Text(origin), config
