"""The `grpo` section of a text configuration: keys and values of trl's GRPOConfig, checked before anything is loaded.

The trainer overrides methods of trl that no promise covers, so only tested versions of it are taken.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_type_hints

from packaging.specifiers import SpecifierSet

from ..config.messages import KeyProblem, did_you_mean, plain, show
from ..config.plugins import checked
from ..config.text import TextConfig
from ..errors import UserError, one_line

TESTED_TRL = ">=1.16,<1.17"  # as in pyproject.toml, extra text


def require_tested_trl() -> None:
    """Refuses a missing trl and one that was not tested: the trainer overrides methods that no promise covers.

    Raises:
        UserError: one line.
    """
    mend = "pip install 't2i-credit[text]'"
    try:
        found = version("trl")
    except PackageNotFoundError:
        raise UserError(
            f"trl is not installed; training on text needs trl {TESTED_TRL}: {mend}"
        ) from None
    if found not in SpecifierSet(TESTED_TRL):
        raise UserError(
            f"trl {found} is installed; training on text is tested with trl {TESTED_TRL}: {mend}"
        )


require_tested_trl()

from trl import GRPOConfig  # noqa: E402
from trl.import_utils import is_vllm_available  # noqa: E402

# Keys that the run sets itself, and which of ours says it.
_OURS = {
    "output_dir": "train.out and train.name",
    "max_steps": "train.steps",
    "num_train_epochs": "train.steps",
    "seed": "train.seed",
    "run_name": "train.name",
    "logging_steps": "metrics.jsonl, which has every step",
    "logging_strategy": "metrics.jsonl, which has every step",
    "logging_first_step": "metrics.jsonl, which has every step",
    "save_strategy": "train.checkpoint_every",
    "save_steps": "train.checkpoint_every",
    "save_total_limit": "train.keep_checkpoints",
    "resume_from_checkpoint": "--resume",
    "ignore_data_skip": "--resume, which goes on at the same problem",
    "report_to": "metrics.jsonl",
}
# What trl looks at in the first step only.
_CHOICES = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "scale_rewards": ("group", "batch", "none"),
}


def grpo_arguments(config: TextConfig, folder: str) -> GRPOConfig:
    """trl's configuration of a run.

    Args:
        config: whose `grpo` section is checked.
        folder: where trl may write.

    Raises:
        KeyProblem: an unknown key, a wrong value, or values that trl refuses together.
    """
    import torch

    given = {key: _checked(key, value) for key, value in config.grpo.items()}
    gpu = torch.cuda.is_available()
    own: dict[str, Any] = {
        "output_dir": folder,
        "seed": config.train.seed,
        "save_strategy": "steps",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }
    # small models on small machines; a larger one says otherwise
    defaults = {"activation_checkpointing": False, "bf16": False, "use_cpu": not gpu}
    defaults["dataloader_pin_memory"] = gpu
    try:
        args = GRPOConfig(**{**defaults, **given, **own})
    except ValueError as error:
        message = one_line(error)
        blamed = [key for key in given if key in message]
        raise KeyProblem(".".join(["grpo", *blamed[:1]]), message) from None
    asked = args.generation_batch_size // args.num_generations
    if config.prompts.count < asked:
        raise KeyProblem(
            "prompts.count",
            f"value {config.prompts.count} is not allowed; at least {asked}, the problems of a step "
            "(grpo.generation_batch_size / grpo.num_generations)",
        )
    updates = updates_per_step(args)
    args.max_steps = config.train.steps * updates
    args.logging_steps = updates
    args.save_steps = config.train.checkpoint_every * updates
    return args


def updates_per_step(args: GRPOConfig) -> int:
    """Optimizer steps of trl in one of ours: all that learn from one rollout.

    Raises:
        KeyProblem: an optimizer step takes a part of one rollout and a part of the next.
    """
    taken, micro_batches = args.gradient_accumulation_steps, _micro_batches(args)
    if micro_batches % taken and taken % micro_batches:
        raise KeyProblem(
            "grpo.gradient_accumulation_steps",
            f"value {taken} is not allowed with rollouts of {micro_batches} micro-batches "
            "(steps_per_generation x num_iterations); one must divide the other",
        )
    return max(1, micro_batches // taken)


def answers_per_step(args: GRPOConfig) -> int:
    """Answers that all processes sample for one of our steps."""
    rollouts = max(1, args.gradient_accumulation_steps // _micro_batches(args))
    return int(args.generation_batch_size) * rollouts


def _micro_batches(args: GRPOConfig) -> int:
    """Forward and backward passes that learn from one rollout."""
    return int(args.steps_per_generation * args.num_iterations)


def _checked(key: str, value: Any) -> Any:
    hints = _hints()
    where = f"grpo.{plain(key)}"
    if key in _OURS:
        raise KeyProblem(where, f"is not for trl here; use {_OURS[key]}")
    if key not in hints:
        hint = did_you_mean(key, hints, "grpo")
        raise KeyProblem(where, f"unknown key{hint} (allowed: the fields of trl.GRPOConfig)")
    found = checked(hints[key], value, where)
    if found not in _CHOICES.get(key, (found,)):
        allowed = ", ".join(_CHOICES[key])
        raise KeyProblem(where, f"value {show(found)} is not allowed; one of {allowed}")
    if key == "use_vllm" and found and not is_vllm_available():
        raise KeyProblem(where, "true needs vllm, which is not installed: pip install 'trl[vllm]'")
    return found


@cache
def _hints() -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(GRPOConfig) if field.init}
    return {name: hint for name, hint in get_type_hints(GRPOConfig).items() if name in names}
