"""Typed configuration of a run on text: the same files, bases, overrides and refusals as for images.

A file is one of these if it has a `grpo` section, which holds keys of trl's GRPOConfig (checked where trl is known). The
sections prompts, rollout, credit, train and log mean what they mean for images; what text has not is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from .files import read_tree
from .messages import parse
from .plugins import CreditConfig
from .values import Count, Float, Place, Section, Seed, folder_name, knob


class TextModelConfig(Section):
    """The language model."""

    name: Place = knob("arithmetic", "an embedded one's name, or a folder")


class TextPromptsConfig(Section):
    """What is asked of the model."""

    source: Literal["arithmetic"] = knob("arithmetic", "a world of texts")
    split: Literal["train", "heldout"] = knob(
        "train", "which problems; heldout ones occur in no training data"
    )
    count: Annotated[int, Field(ge=1, le=100_000)] = knob(4000, "different problems, drawn once")
    seed: Seed = knob(0, "seed of the problems")
    negative: str | None = knob(
        None, "suffix that makes the negative prompt; null = the world's own negative prompt"
    )


class TextRolloutConfig(Section):
    """What happens to a rollout before it is scored."""

    gold: bool = knob(
        False, "where a whole group fails, its last answer gives way to a reference answer"
    )
    fail_below: Float = knob(0.0, "gold: an answer has failed if its reward is at most this")
    gold_reward: Float = knob(1.0, "gold: the reward of a reference answer")


class TextTrainConfig(Section):
    """The run."""

    steps: Count = knob(100, "training steps (rollouts)")
    seed: Seed = knob(0, "seed of sampling and of the order of prompts")
    threads: Count | None = knob(None, "CPU threads; null = torch's own choice")
    checkpoint_every: Count = knob(50, "steps between checkpoints")
    keep_checkpoints: Count = knob(2, "newest checkpoints that are kept")
    out: Place = knob("runs", "folder of all run folders")
    name: str | None = knob(None, "name of the run folder; left out = made from the recipe's name")

    _is_a_folder_name = field_validator("name")(folder_name)


class TextLogConfig(Section):
    """What the run folder keeps of a step."""

    samples_every: Count = knob(10, "steps between kept answers and credit")
    groups: Count = knob(2, "prompt groups kept of such a step")


class TextConfig(Section):
    """The whole configuration of a run on text."""

    model: TextModelConfig = Field(default_factory=TextModelConfig)
    prompts: TextPromptsConfig = Field(default_factory=TextPromptsConfig)
    rollout: TextRolloutConfig = Field(default_factory=TextRolloutConfig)
    credit: CreditConfig = Field(default_factory=CreditConfig)
    grpo: dict[str, Any] = Field(default_factory=dict, description="keys of trl's GRPOConfig")
    train: TextTrainConfig = Field(default_factory=TextTrainConfig)
    log: TextLogConfig = Field(default_factory=TextLogConfig)


def load_text_config(
    name: str, overrides: Sequence[str] = ()
) -> tuple[TextConfig, Callable[[str], str]] | None:
    """The configuration of a file or recipe, and where each key was set; None if it is one for images.

    Raises:
        ConfigError: one line that names the file or the command line, the key, and what is allowed.
    """
    tree, _, origin = read_tree(name, overrides)
    if "grpo" not in tree:
        return None
    if tree.get("reward") == {"geneval": {}}:
        del tree["reward"]  # the default of images
    return parse(TextConfig, tree, origin), origin
