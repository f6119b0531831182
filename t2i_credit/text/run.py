"""A run on an embedded text world: from a text configuration to a trained model in a run folder, and the plan of one.

Computes nothing itself.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.launch import changes, run_folder, run_path, warn_of_repeats
from ..config.messages import KeyProblem
from ..config.text import TextConfig
from ..errors import ConfigError
from ..run_folder.atomic import write_folder_atomic
from ..training.policy import Passes
from ..training.stopping import Stop
from .arguments import grpo_arguments
from .checkpoint import ResumableTrainer
from .record import MetricsCallback, Report, StepRecorder
from .settings import REFERENCE_FIELDS, TextCreditConfig, check_arguments

Origin = Callable[[str], str]
# What the trainer calls a setting, and where a text configuration has it; all else that it refuses is trl's.
_KEYS = {
    "negative": "prompts.negative",
    "gold": "rollout.gold",
    "gold_reward": "rollout.gold_reward",
}


@dataclass(frozen=True)
class TextParts:
    """Everything that a run on text is made of, checked; the model is not loaded yet."""

    config: TextConfig
    credit: TextCreditConfig
    rows: list[dict[str, Any]]
    reward: Callable[..., list[float]]


def prepare_text(config: TextConfig, origin: Origin) -> TextParts:
    """Checks a configuration and draws its problems.

    Args:
        config: what to do.
        origin: dotted key -> what to call the place that set it, for messages.

    Raises:
        ConfigError: one line.
    """
    from ..worlds.arithmetic import questions
    from ..worlds.arithmetic.chains import check
    from ..worlds.arithmetic.problems import dataset

    settings = config.prompts
    with named_keys(origin):
        credit = text_credit(config)
        check_arguments(credit, checked_arguments(config), {})
    rows = dataset(settings.count, settings.seed, settings.split)
    if credit.negative_column:
        rows = [{**row, "negative": questions.negative(row["prompt"])} for row in rows]

    def correct(completions: list[str], answer: list[int], **_: Any) -> list[float]:
        return [float(check(c, a)) for c, a in zip(completions, answer, strict=True)]

    return TextParts(config, credit, rows, correct)


@contextmanager
def named_keys(origin: Origin) -> Iterator[None]:
    """Makes a KeyProblem a ConfigError that names our key and who set it."""
    try:
        yield
    except KeyProblem as found:
        key = _KEYS.get(found.key, found.key)
        key = key if "." in key else f"grpo.{key}"
        raise ConfigError(f"{origin(key)}: {key}: {found.problem}") from None


def checked_arguments(config: TextConfig) -> Any:
    """trl's configuration, defaults filled in, to look at.

    Raises:
        KeyProblem: see `grpo_arguments`.
    """
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        return grpo_arguments(config, folder)


def text_credit(config: TextConfig) -> TextCreditConfig:
    """The trainer's credit of a configuration: its negative prompts are the world's, unless a suffix is given."""
    suffix, rollout = config.prompts.negative, config.rollout
    own = suffix is None and TextCreditConfig.compares(config.credit)
    return TextCreditConfig(
        config.credit.model_dump(),
        negative=suffix,
        negative_column="negative" if own else None,
        gold="gold" if rollout.gold else None,
        fail_below=rollout.fail_below,
        gold_reward=rollout.gold_reward,
    )


def run_text(
    parts: TextParts, *, resume: bool = False, report: Report, warn: Callable[[str], None]
) -> Path:
    """Trains; returns the run folder, which holds the trained model in `model/`.

    Args:
        parts: of `prepare_text`.
        resume: go on with the run of that name at its newest checkpoint.
        report: called after each step with its number (from 1) and metrics.
        warn: called with lines that the user should read.

    Raises:
        UserError: the model cannot be loaded, the folder cannot be written, or the run cannot be resumed.
        Stopped: SIGTERM or Ctrl-C; says where `resume` goes on.
    """
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback

    from ..models.text_model import load_text_model

    config, path = parts.config, run_path(parts.config)
    stop = Stop(path)
    if resume:
        _check_changes(path, config, warn)
        warn_of_repeats(path, warn)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    model, tokenizer = load_text_model(config.model.name)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        args = grpo_arguments(config, folder)
        trainer = ResumableTrainer(
            model,
            parts.reward,
            args,
            Dataset.from_list(parts.rows),
            processing_class=tokenizer,
            credit=parts.credit,
            stop=stop,
        )
        with run_folder(trainer.accelerator, config, path, resume) as run, stop.heeded():
            size, updates = args.num_generations, trainer.updates
            trainer.watch = StepRecorder(run, tokenizer, config, group_size=size, updates=updates)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(MetricsCallback(run, report, lambda: trainer.samples))
            trainer.load(run.resume_step, run.checkpoints)
            trainer.accelerator.wait_for_everyone()  # all fits: nothing was written before
            run.begin()
            trainer.train_from(
                run.resume_step, folder=run.checkpoints, keep=config.train.keep_checkpoints
            )
            if trainer.accelerator.is_main_process:
                with write_folder_atomic(run.path / "model") as draft:
                    trainer.write_model(draft)
            # a process that goes while another still writes would take its connections along
            trainer.accelerator.wait_for_everyone()
            trainer.accelerator.end_training()
    return Path(run.path)


def _check_changes(path: Path, config: TextConfig, warn: Callable[[str], None]) -> None:
    """Refuses to resume a run whose problems, model or learning are others now; warns of what may change.

    Raises:
        ConfigError: one line.
    """
    for key, line in changes(path, config).items():
        section = key.split(".")[0]
        if section not in ("train", "log") or key == "train.seed":
            raise ConfigError(f"--resume: {line}; a run on text goes on as it began")
        warn(line)


def plan_text(parts: TextParts) -> Mapping[str, Any]:
    """What a run will do, for people."""
    config = parts.config
    batch = config.grpo.get("per_device_train_batch_size", 8)
    return {
        "model": config.model.name,
        "problems": f"{len(parts.rows)}, {config.prompts.split}",
        "steps": f"{config.train.steps} with {batch} answers in a batch",
        "credit": config.credit.name,
        "run folder": str(run_path(config)),
    }


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps names that trl and transformers deprecate for each other from the user, who cannot change them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will be removed in v6", category=FutureWarning)
        logger = logging.getLogger("transformers")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def passes_needed(credit: TextCreditConfig, args: Any) -> Passes:
    """What a step (a rollout with all its updates) takes, of a model without dropout.

    Args:
        credit: the trainer's.
        args: trl's GRPOConfig.
    """
    updates = args.num_iterations
    rollout = args.steps_per_generation * updates
    # trl asks for the log-probs of sampling where updates are not those of the sampling policy
    corrected = args.use_vllm and args.vllm_importance_sampling_correction
    old = bool(args.gradient_accumulation_steps % rollout) or corrected
    opinions = 1 + credit.needs_negative if credit.needs else 0
    shared = old and args.temperature == 1 and not args.mask_truncated_completions
    if shared and not credit.renews and credit.needs == {"logprobs", "negative_logprobs"}:
        opinions -= 1  # the log-probs of sampling are those under the positive prompt
    reference = args.beta != 0 or bool(credit.needs & REFERENCE_FIELDS)
    frozen = old + reference
    return Passes(
        decode=1,
        policy=updates,
        frozen=frozen + opinions * (updates if credit.renews else 1),
    )
