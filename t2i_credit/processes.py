"""Several processes, one step: whose share is whose, and how the parts come together again. Starts no process.

Sampling, rewards and gradients are shared out by prompts, groups whole. Everything else (advantages, credit, metrics) each
process does on the whole step, so that it comes out as in one process. One process writes the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .interfaces import Prompt, Rollout
from .run_folder import numbered_folders


def rank() -> int:
    """The number of this process, from 0, as torchrun and accelerate launch say it."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device() -> str:
    """The GPU of this process, if there is one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def require_enough_prompts(prompts: int, processes: int) -> None:
    """Raises ConfigError where a process would have no prompt."""
    if prompts < processes:
        raise ConfigError(
            f"prompts.per_step: {prompts} is not allowed with {processes} processes; at least one prompt each"
        )


def shares(prompts: int, processes: int) -> list[slice]:
    """The prompts of each process, as even as can be; all of them for everyone where there are too few to share."""
    if prompts < processes:
        return [slice(0, prompts)] * processes
    return [
        slice(i * prompts // processes, (i + 1) * prompts // processes) for i in range(processes)
    ]


def my_share(prompts: int, accelerator: Any) -> slice:
    """The prompts of this process."""
    return shares(prompts, accelerator.num_processes)[accelerator.process_index]


def sharing_processes(prompts: int, accelerator: Any) -> int:
    """How many processes have a share of their own; 1 where everyone does everything."""
    processes: int = accelerator.num_processes
    return processes if prompts >= processes else 1


def micro_batches(samples: range, size: int, group_size: int) -> list[range]:
    """The samples in micro-batches of at most `size`: whole groups where they fit, whose prompts then run once."""
    step = size // group_size * group_size or size
    return [samples[i : i + step] for i in range(0, len(samples), step)]


def my_micro_batches(
    samples: int, size: int, group_size: int, accelerator: Any, *, together: bool
) -> list[tuple[range, bool, bool]]:
    """(samples, whether they are the last, whether they are spare) of each micro-batch of this process.

    Args:
        samples: of all processes.
        size: most samples in a micro-batch.
        group_size: samples of a prompt.
        accelerator: which processes there are.
        together: parameters in parts are gathered by all processes together: one that is done before the others goes on
            with spare micro-batches, which count nothing.
    """
    every = [
        micro_batches(range(part.start * group_size, part.stop * group_size), size, group_size)
        for part in shares(samples // group_size, accelerator.num_processes)
    ]
    mine = every[accelerator.process_index]
    spare = max(map(len, every)) - len(mine) if together else 0
    found = [(rows, i + 1 == len(mine), False) for i, rows in enumerate(mine)]
    return found + [(mine[-1], True, True)] * spare


def gather_rows(rows: Tensor, prompts: int, accelerator: Any) -> Tensor:
    """The rows of every process's share, (n, ...) here, to those of all prompts, on every process.

    Where everyone did everything, those of the first process: rewards from a server or a GPU need not agree to the bit,
    and what is decided by them must.
    """
    from accelerate.utils import broadcast

    if accelerator.num_processes == 1:
        return rows
    # not every backend sends bool
    plain = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    if sharing_processes(prompts, accelerator) == 1:
        first: Tensor = broadcast(plain.clone(memory_format=torch.contiguous_format))
        return first.to(rows.dtype)
    counts = [part.stop - part.start for part in shares(prompts, accelerator.num_processes)]
    sizes = [n * (len(rows) // counts[accelerator.process_index]) for n in counts]
    padded = plain.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = plain
    found = accelerator.gather(padded.contiguous()).split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)]).to(rows.dtype)


def gather_rollout(part: Rollout, prompts: Sequence[Prompt], accelerator: Any) -> Rollout:
    """The rollout of this process's share to that of all prompts, on every process."""
    columns: dict[str, Any] = {
        field.name: gather_rows(getattr(part, field.name), len(prompts), accelerator)
        for field in fields(part)
        if isinstance(getattr(part, field.name), Tensor)
    }
    everyone = [prompt for prompt in prompts for _ in range(part.group_size)]
    return replace(part, prompts=everyone, **columns)


def reduce_metrics(
    totals: dict[str, float], largest: Collection[str], prompts: int, accelerator: Any
) -> dict[str, float]:
    """Sums of every process's part of each metric, or the largest one."""
    if sharing_processes(prompts, accelerator) == 1:
        return totals
    names = sorted(totals)
    mine = [[totals[name] for name in names]]
    every = accelerator.gather(torch.tensor(mine, device=accelerator.device))
    sums, most = every.sum(0).tolist(), every.max(0).values.tolist()
    return {name: most[i] if name in largest else sums[i] for i, name in enumerate(names)}


class Follower:
    """The run folder of a process that writes nothing: what a `RunWriter` offers to a trainer."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self.resume_step = max(numbered_folders(self.checkpoints), default=0) if resume else 0

    def append_metrics(self, step: int, metrics: Any) -> None:
        """Left to the first process."""

    def write_step(self, *args: Any, **fields: Any) -> None:
        """Left to the first process."""

    def write_text_step(self, *args: Any, **fields: Any) -> None:
        """Left to the first process."""
