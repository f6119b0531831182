"""Comparisons of recipes for images: how their runs are trained, evaluated and counted. See kind.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...api.launch import run_training
from ...api.models import check_model, usual_world
from ...api.parts import build_reward, load_prompt_set, prepare
from ...config.schema import Config
from ...config.values import with_section
from ...errors import ConfigError, UserError
from ...interfaces import Prompt
from ...prompts.files import load_prompts
from ...prompts.records import WORLDS, distinct
from ...run_folder.reader import RunReader
from ...training.policy import passes_needed
from ...worlds.world import find_world
from ..evaluation.command import evaluate_model, find_judges, judged_prompts, split_name
from ..evaluation.evaluate import check_prompts
from ..evaluation.protocol import Protocol
from ..evaluation.scores import usual_size
from .kind import SPLITS, EvaluationPlan, Report, Say

_PROMPTS = ("source", "column", "split", "tasks", "negative", "per_step", "balance")


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """How every final generator is evaluated.

    Attributes:
        prompts: per task, of the embedded world.
        images: of each prompt.
        cfg_scale: guidance.
        seed: of the noise.
        source: a prompt file with GenEval records, the whole of which is evaluated; None = the embedded world.
        detector: who finds the objects, as in `api.load_detector`.
        world: the embedded one.
    """

    prompts: int = 50
    images: int = 4
    cfg_scale: float
    seed: int = 0
    source: str | None = None
    detector: str = WORLDS[0]
    world: str = WORLDS[0]

    @property
    def splits(self) -> Sequence[str]:
        """A file has one."""
        return SPLITS if self.source is None else SPLITS[:1]

    def prompts_of(self, split: str) -> list[Prompt]:
        """What is evaluated."""
        if self.source is not None:
            return judged_prompts(load_prompts(self.source), self.detector)[0]
        return find_world(self.world).evaluation_prompts(split, self.prompts)

    def found(self, run: Path, split: str) -> dict[str, Any] | None:
        """See `kind.EvaluationPlan`."""
        reader, settings = RunReader(run), self.protocol().to_dict()
        steps = reader.config()["train"]["steps"]
        source = self.source or split_name(self.world, split)
        lines = self.prompts_of(split)
        settings["images_per_prompt"] = usual_size(lines, [self.images] * len(lines))
        prompts = [(prompt.text, prompt.negative) for prompt in distinct(lines)]
        asked = (source, steps, prompts, settings)
        any_size = {"batch_size": settings["batch_size"]}  # it decides about no score
        for name in reader.evaluations():
            value = reader.evaluation(name)
            about = value.get("about", {})
            judged = [(row.get("text"), row.get("negative")) for row in value.get("prompts", [])]
            made = (about.get("prompts"), about.get("step"), judged)
            if (*made, value.get("protocol", {}) | any_size) == asked:
                return value
        return None

    def evaluate(self, run: Path, split: str) -> None:
        """See `kind.EvaluationPlan`."""
        settings: dict[str, Any] = self.protocol().to_dict()
        evaluate_model(str(run), split=split, source=self.source, per_task=self.prompts, **settings)

    def protocol(self) -> Protocol:
        """How the images are sampled and judged."""
        return Protocol(
            images_per_prompt=self.images,
            cfg_scale=self.cfg_scale,
            seed=self.seed,
            detector=self.detector,
        )


class Images:
    """See `kind.Kind`."""

    name = "images"
    figures: Sequence[str] = ()

    def plan(self, config: Config, **given: Any) -> ImagePlan:
        given.setdefault("cfg_scale", config.rollout.cfg_scale)
        given["world"] = usual_world(config.model.name)
        given.setdefault("detector", given["world"])
        if "samples" in given:
            given["images"] = given.pop("samples")
        return ImagePlan(**given)

    def shared(self, config: Config) -> Mapping[str, Any]:
        found = config.model_dump(mode="json")
        return {
            **{f"model.{key}": value for key, value in found["model"].items()},
            "reward": found["reward"],
            **{f"prompts.{key}": found["prompts"][key] for key in _PROMPTS},
            "rollout.group_size": config.rollout.group_size,
            # what the training rewards of all of them are rewards of
            **{f"rollout.{key}": value for key, value in config.rollout.sampling.items()},
            **{f"tune.{key}": value for key, value in found["tune"].items() if key != "recompute"},
            "loss.updates_per_rollout": config.loss.updates_per_rollout,
            "train.steps": config.train.steps,
        }

    def samples_per_step(self, config: Config) -> int:
        return config.prompts.per_step * config.rollout.group_size

    def passes(self, config: Config) -> int:
        return passes_needed(config, config.credit.entry).total

    def alone(self, config: Config) -> Config:
        return with_section(config, "train", trackers=())

    def short(self, config: Config, *, steps: int, out: str) -> Config:
        found = with_section(self.alone(config), "train", steps=steps, out=out, name="short")
        found = with_section(found, "optim", warmup_steps=0)
        return with_section(found, "log", samples_every=steps, probes=0)

    def check(self, config: Config, evaluation: EvaluationPlan) -> None:
        assert isinstance(evaluation, ImagePlan)
        check_model(config.model.name)
        prompts = load_prompt_set(config)
        asked = evaluation.prompts_of(SPLITS[0]) if evaluation.source else prompts
        if evaluation.source:
            check_prompts(asked)
        known = find_judges(evaluation.protocol()).check
        try:
            known([prompt for prompt in asked if prompt.spec])
        except UserError as error:
            if evaluation.source:
                raise
            raise ConfigError(
                f"prompts.source: {config.prompts.source!r} cannot be compared on the embedded world: {error}; give "
                "--evaluate-on FILE and --detector NAME"
            ) from error
        build_reward(config).check(prompts)

    def train(
        self, config: Config, *, resume: bool = False, report: Report, warn: Say = print
    ) -> None:
        run_training(prepare(config), resume=resume, report=report, warn=warn)
