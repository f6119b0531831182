"""Comparisons of recipes for text: how their runs are trained, evaluated and counted. See kind.py.

A seed decides the problems, their order and all noise of training, for every method alike. A method with several updates
per rollout takes them all in one step, so that each sees the same problems at the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...config.text import TextConfig
from ...config.values import with_section
from ...errors import ConfigError
from ...run_folder.reader import RunReader
from ..evaluation.text import ANSWERS, PROBLEMS, TextProtocol, evaluate_text_model
from .kind import SPLITS, EvaluationPlan, Report, Say

_FOR_IMAGES = {
    "cfg_scale": "--cfg-scale: for images alone; a text is sampled without guidance",
    "source": "--evaluate-on: for images alone; a text is evaluated on problems of its world",
    "detector": "--detector: for images alone; answers are checked exactly",
}
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "generation_kwargs")


@dataclass(frozen=True, kw_only=True)
class TextPlan:
    """How every final language model is evaluated: problems, answers of each, seed of the problems and the noise."""

    problems: int = PROBLEMS
    answers: int = ANSWERS
    seed: int = 0

    @property
    def splits(self) -> Sequence[str]:
        return SPLITS

    def found(self, run: Path, split: str) -> dict[str, Any] | None:
        """See `kind.EvaluationPlan`."""
        reader, asked = RunReader(run), TextProtocol(split=split, **asdict(self))
        steps = reader.config()["train"]["steps"]
        for name in reader.evaluations():
            value = reader.evaluation(name)
            made = (value.get("about", {}).get("step"), value.get("protocol"))
            if made == (steps, asdict(asked)):
                return value
        return None

    def evaluate(self, run: Path, split: str) -> None:
        """See `kind.EvaluationPlan`."""
        evaluate_text_model(str(run), TextProtocol(split=split, **asdict(self)))


class Text:
    """See `kind.Kind`.

    Args:
        origin: dotted key -> what to call the place that set it, for messages.
    """

    name = "text"
    figures: Sequence[str] = ("pass_at_k",)

    def __init__(self, origin: Callable[[str], str]) -> None:
        self.origin = origin

    def plan(self, config: TextConfig, **given: Any) -> TextPlan:
        for name, why in _FOR_IMAGES.items():
            if name in given:
                raise ConfigError(why)
        names = {"prompts": "problems", "samples": "answers"}
        return TextPlan(**{names.get(key, key): value for key, value in given.items()})

    def shared(self, config: TextConfig) -> Mapping[str, Any]:
        from ...text.arguments import answers_per_step

        args = self._arguments(config)
        return {
            "model.name": config.model.name,
            "prompts.source": config.prompts.source,
            "prompts.split": config.prompts.split,
            "prompts.count": config.prompts.count,
            "train.steps": config.train.steps,
            "grpo.num_generations": args.num_generations,
            "grpo.max_completion_length": args.max_completion_length,
            "grpo.generation_batch_size": answers_per_step(args),
            "grpo.num_iterations": args.num_iterations,
            # what the training rewards of all of them are rewards of
            **{f"grpo.{key}": getattr(args, key) for key in _SAMPLING},
        }

    def samples_per_step(self, config: TextConfig) -> int:
        from ...text.arguments import answers_per_step

        return answers_per_step(self._arguments(config))

    def passes(self, config: TextConfig) -> int:
        from ...text.run import passes_needed, text_credit

        return passes_needed(text_credit(config), self._arguments(config)).total

    def alone(self, config: TextConfig) -> TextConfig:
        return config

    def short(self, config: TextConfig, *, steps: int, out: str) -> TextConfig:
        found = with_section(config, "train", steps=steps, out=out, name="short")
        return with_section(found, "log", samples_every=steps)

    def check(self, config: TextConfig, evaluation: EvaluationPlan) -> None:
        from ...text.run import prepare_text

        prepare_text(config, self.origin)

    def train(
        self, config: TextConfig, *, resume: bool = False, report: Report, warn: Say = print
    ) -> None:
        from ...text.run import prepare_text, run_text

        run_text(prepare_text(config, self.origin), resume=resume, report=report, warn=warn)

    def _arguments(self, config: TextConfig) -> Any:
        """trl's configuration, defaults filled in."""
        from ...text.run import checked_arguments, named_keys

        with named_keys(self.origin):
            return checked_arguments(config)
