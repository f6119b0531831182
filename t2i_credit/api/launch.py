"""From a configuration to a trained run, and what surrounds it: its folder, its trackers, what it ran on. The loop is the
trainer's.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config.places import anchored
from ..config.schema import Config, load_config, parse_config, to_yaml
from ..config.text import TextConfig
from ..errors import RunError
from ..yaml_text import write_yaml
from .memory import out_of_memory
from .parts import Parts, prepare

Report = Callable[[int, Mapping[str, float]], None]


@contextmanager
def run_folder(
    accelerator: Any, config: Config | TextConfig, path: Path, resume: bool
) -> Iterator[Any]:
    """The run folder, which the first process writes once it has begun; the others know where it is."""
    from ..run_folder.writer import RunWriter
    from ..training.processes import Follower

    if not accelerator.is_main_process:
        yield Follower(path, resume=resume)
        return
    with RunWriter.planned(
        path,
        config=write_yaml(anchored(config.model_dump(mode="json"))),
        environment=environment(config),
        total=config.train.steps,
        resume=resume,
    ) as run:
        yield run


def changes(path: Path, config: Config | TextConfig) -> dict[str, str]:
    """{key: a line} of the values that a resumed run had otherwise so far."""
    from ..config.files import dotted
    from ..run_folder.reader import RunReader

    reader = RunReader(path, strict=False)
    both = reader.config(), config.model_dump(mode="json")
    before, now = (dotted(anchored(tree)) for tree in both)
    return {
        key: f"{key} was {before.get(key)!r} so far, and is {now.get(key)!r} from here on"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    }


def is_finished(path: Path, steps: int) -> bool:
    """Whether a run has ended with its last step, and a checkpoint of it."""
    from ..run_folder.reader import RunReader

    reader = RunReader(path, strict=False)
    done = max(reader.checkpoints(), default=0) == steps
    return done and reader.status(strict=False).state == "finished"


def warn_of_repeats(path: Path, warn: Callable[[str], None]) -> None:
    """Says where a resumed run goes on, if steps that it has made are made again, and what of its metrics is lost."""
    from ..run_folder.reader import RunReader
    from ..run_folder.start import DAMAGED

    reader = RunReader(path, strict=False)
    start = max(reader.checkpoints(), default=0)
    rows, unread = reader.sorted_metrics()
    made = max((int(row["step"]) for row in rows), default=0)
    if made > start:
        where = f"goes on after its checkpoint of step {start}" if start else "has no checkpoint"
        again = f"steps {start + 1} to {made} are" if made > start + 1 else f"step {made} is"
        warn(f"{path} {where}: {again} run again")
    if start and not (path / "metrics.jsonl").is_file():
        warn(f"{path}/metrics.jsonl: is missing; its curves begin after step {start}")
    if damaged := [number for number, _ in unread]:
        lines = f"{len(damaged)} damaged lines, line {damaged[0]} first, are"
        lines = lines if len(damaged) > 1 else f"line {damaged[0]} is damaged, and is"
        warn(f"{path}/metrics.jsonl: {lines} kept in {DAMAGED}")


def slow_format(config: Config, device: str) -> str | None:
    """A line about a number format that is meant for GPUs, where there is none."""
    if config.model.dtype == "float32" or device != "cpu":
        return None
    return "model.dtype: bfloat16 is meant for a GPU; on this CPU it may be slower than float32"


def sampled_otherwise(config: Config) -> str | None:
    """A line about a described generator that is trained under another sampling than its description names."""
    from ..models.description import described

    if (description := described(Path(config.model.name))) is None:
        return None
    usual, ours = description.sampling.model_dump(exclude_none=True), config.rollout.sampling
    if not (keys := [key for key in usual if usual[key] != ours[key]]):
        return None
    theirs = ", ".join(f"{key} {usual[key]:g}" for key in keys)
    here = ", ".join(f"rollout.{key}={ours[key]:g}" for key in keys)
    return f"{config.model.name} is usually sampled at {theirs}; this run samples at {here}"


def check_run_folder(config: Config | TextConfig, *, resume: bool) -> None:
    """Refuses before any weight is loaded what `RunWriter.planned` would refuse later.

    Raises:
        RunError: the run exists (without `resume`); or it does not, or cannot go on (with it).
    """
    from ..run_folder.start import check_new, check_resumable
    from ..training.processes import rank

    if rank() > 0:
        return  # the first process may have made it already
    if resume:
        check_resumable(run_path(config), config.train.steps)
    else:
        check_new(run_path(config))


def run_path(config: Config | TextConfig) -> Path:
    """Where the run of a configuration lies."""
    return Path(config.train.out) / (config.train.name or "run")


@contextmanager
def trackers(accelerator: Any, config: Config) -> Iterator[None]:
    """The trackers' life, so that they are closed whatever happens."""
    path = run_path(config)
    try:
        if config.train.trackers:
            shown = {"run": path.name, "config": to_yaml(config)}
            accelerator.init_trackers("t2i-credit", config=shown)
    except OSError as error:
        raise RunError(f"{path}: trackers cannot be started: {error.strerror or error}") from error
    try:
        yield
    finally:
        # metrics.jsonl has it all, and an earlier error is the one to report
        with suppress(OSError):
            accelerator.end_training()


def environment(config: Config | TextConfig) -> dict[str, Any]:
    """Versions, device, processes, seed, commit and time, for the run folder."""
    import accelerate
    import diffusers
    import torch
    import transformers

    from .. import __version__
    from ..training.processes import process_count

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "t2i_credit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "diffusers": diffusers.__version__,
        "accelerate": accelerate.__version__,
        "platform": platform.platform(),
        "device": gpu or "cpu",
        "threads": torch.get_num_threads(),
        "processes": process_count(),
        "seed": config.train.seed,
        "commit": _commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def train(
    config: Config | Mapping[str, Any] | str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    report: Report = lambda step, metrics: None,
    warn: Callable[[str], None] = print,
) -> Path:
    """Fine-tunes a model as a configuration says.

    Args:
        config: a `Config`, a nested mapping, a YAML file, or the name of a shipped recipe ("shapes/gcpo").
        overrides: such as "optim.lr=3e-4"; only with a file or recipe.
        resume: continue the run of the same name at its newest checkpoint.
        report: called after each step with its number and metrics.
        warn: called with lines that the user should read.

    Returns:
        The run folder.

    Raises:
        UserError: whatever is wrong with the configuration, its files, the run folder, or the run itself.
        Stopped: SIGTERM or Ctrl-C, a KeyboardInterrupt that says where `resume` goes on.
    """
    if isinstance(config, (str, os.PathLike)):
        config = load_config(config, overrides)
    elif not isinstance(config, Config):
        config = parse_config(config)
    check_run_folder(config, resume=resume)
    return run_training(prepare(config), resume=resume, report=report, warn=warn)


def run_training(
    parts: Parts, *, resume: bool, report: Report, warn: Callable[[str], None]
) -> Path:
    """Trains what `prepare` built; see `train`."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from ..training.gold import References
    from ..training.processes import lost_processes
    from ..training.stopping import Stop
    from ..training.trainer import Trainer
    from .objects import describe_as_rewarded

    config = parts.config
    path = run_path(config)
    over = resume and is_finished(path, config.train.steps)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(
        mixed_precision=config.train.precision,
        log_with=list(config.train.trackers) or None,
        project_dir=str(path / "trackers"),
    )
    if slow := slow_format(config, accelerator.device.type):
        warn(slow)
    if otherwise := sampled_otherwise(config):
        warn(otherwise)
    if resume and accelerator.is_main_process:
        lines = [*changes(path, config).values()]  # the new values hold from here on
        if over and lines:
            said = "has all its steps, so nothing is trained, and no other value is taken"
            lines = [f"{path} {said}: {lines[0]}"]
        for line in lines:
            warn(line)
        warn_of_repeats(path, warn)
    stop = Stop(path)
    with (
        run_folder(accelerator, config, path, resume) as run,
        stop.heeded(),
        lost_processes(),
        out_of_memory("; then continue at the last checkpoint with --resume"),
    ):
        trainer = Trainer(
            config,
            model=parts.model.to(accelerator.device),
            reference=parts.reference.to(accelerator.device) if parts.reference else None,
            reward=parts.reward,
            advantage=parts.advantage,
            credit=parts.credit,
            prompts=parts.prompts,
            run=run,
            accelerator=accelerator,
            critic_file=parts.critic,
            reference_image=parts.references or References(None),
            describe=describe_as_rewarded(config, parts.reward),
            maps=parts.maps,
            report=report,
            warn=warn,
            stop=stop,
        )
        accelerator.wait_for_everyone()  # all is loaded and fits: nothing was written before
        if over:
            trainer.prune()
            return path
        run.begin()
        with trackers(accelerator, config):
            trainer.train()
    return path
