"""Comparisons of recipes for images: how their runs are trained, evaluated and counted. See compare_kinds.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import api, judging
from .compare_kinds import Report, with_section
from .config import Config, find_plugin
from .credit import CREDIT
from .errors import ConfigError, UserError
from .protocol import Protocol
from .run_reader import RunReader
from .update import as_entry

_PROMPTS = ("source", "split", "tasks", "negative", "per_step", "balance")


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """How every final generator is evaluated: prompts per task, images of each, guidance, seed of the noise."""

    prompts: int = 50
    images: int = 4
    cfg_scale: float = judging.CFG_SCALE
    seed: int = 0

    def found(self, run: Path, split: str) -> dict[str, Any] | None:
        """See `compare_kinds.EvaluationPlan`."""
        reader = RunReader(run)
        asked = _deciding(self.protocol().to_dict())
        prompts = len(judging.evaluation_prompts(split, self.prompts))
        for name in reader.evaluations():
            value = reader.evaluation(name)
            about, overall = value.get("about", {}), value.get("summary", {}).get("overall", {})
            same = (about.get("prompts"), about.get("step"), overall.get("prompts")) == (
                judging.split_name(split),
                reader.config()["train"]["steps"],
                prompts,
            )
            if same and _deciding(value.get("protocol", {})) == asked:
                return value
        return None

    def evaluate(self, run: Path, split: str) -> None:
        """See `compare_kinds.EvaluationPlan`."""
        settings: dict[str, Any] = self.protocol().to_dict()
        judging.evaluate_model(str(run), split=split, per_task=self.prompts, **settings)

    def protocol(self) -> Protocol:
        return Protocol(images_per_prompt=self.images, cfg_scale=self.cfg_scale, seed=self.seed)


def _deciding(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a protocol that decide about its scores."""
    return {key: value for key, value in protocol.items() if key != "batch_size"}


class Images:
    """See `compare_kinds.Kind`."""

    name = "images"
    figures: Sequence[str] = ()

    def plan(self, **given: Any) -> ImagePlan:
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
            "train.steps": config.train.steps,
        }

    def samples_per_step(self, config: Config) -> int:
        return config.prompts.per_step * config.rollout.group_size

    def passes(self, config: Config) -> int:
        entry = as_entry(find_plugin(config.credit.name, CREDIT, "credit.name"))
        return api.forward_passes(
            api.Parts(config, None, None, None, [], lambda rewards, size: rewards, entry)
        )

    def alone(self, config: Config) -> Config:
        return with_section(config, "train", trackers=())

    def short(self, config: Config, *, steps: int, out: str) -> Config:
        found = with_section(self.alone(config), "train", steps=steps, out=out, name="short")
        found = with_section(found, "optim", warmup_steps=0)
        return with_section(found, "log", samples_every=steps, probes=0)

    def check(self, config: Config) -> None:
        prompts = api.load_prompt_set(config)
        _, known = judging.find_detector(self.plan().protocol())
        try:
            known([prompt for prompt in prompts if prompt.spec])
        except UserError as error:
            raise ConfigError(
                f"prompts.source: {config.prompts.source!r} cannot be compared: {error}; final models are evaluated "
                "on shapes alone (for others `train` each and `evaluate --against`)"
            ) from error
        api.build_reward(config).check(prompts)

    def train(
        self,
        config: Config,
        *,
        resume: bool = False,
        report: Report,
        warn: Callable[[str], None] = print,
    ) -> None:
        api.run_training(api.prepare(config), resume=resume, report=report, warn=warn)
