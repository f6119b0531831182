"""Several processes, one step: whose share is whose, and how the parts come together again. Starts no process.

Sampling, rewards and gradients are shared out by prompts, groups whole. Everything else (advantages, credit, metrics) each
process does on the whole step, so that it comes out as in one process. One process writes the run folder.

Parameters, gradients and optimizer state may lie in parts, one for each process: torch's `fully_shard` (FSDP2). A
transformer layer is gathered for its pass and let go again; sampling gathers all of them once. What a model keeps frozen
outside its `language_model` (image tokenizer, text encoder, unused heads) stays whole in every process, because it is used
between passes. All processes gather together, so each must run as many passes as the others.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import ConfigError, TrainingError
from ..interfaces import Prompt, Rollout
from ..run_folder.layout import numbered_folders

# what gloo and NCCL say when a process that they talk to is gone
GONE = re.compile(
    r"closed by peer|reset by peer|broken pipe|connection refused|remote (process|error)|timed out",
    re.I,
)
# what runs the transformer besides `forward`
PASSES = ("prefill", "advance", "reference")


def rank() -> int:
    """The number of this process, from 0, as torchrun and accelerate launch say it."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device() -> str:
    """The GPU of this process, if there is one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


@contextmanager
def lost_processes() -> Iterator[None]:
    """Says in words what the backend says in its own when another process of the run has ended.

    Raises:
        TrainingError: in place of its error.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1 or not GONE.search(str(error)):
            raise
        raise TrainingError(
            "another process of this run has ended, and this one cannot go on alone; what it said is above or in the launcher's "
            "table; then continue at the last checkpoint with --resume"
        ) from error


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

    def append_metrics(self, *args: Any, **fields: Any) -> None:
        """Left to the first process."""

    begin = write_step = write_text_step = append_metrics


def refuse_foreign_sharding() -> None:
    """Raises ConfigError where accelerate was told to share parameters out itself: `distribute` would do it again, or
    believe that they are whole."""
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise ConfigError(
                f"accelerate's own {name} is refused: choose multi-GPU in accelerate config; train.sharding=full "
                "shares parameters out"
            )


def require_shardable(model: Any) -> None:
    """Raises ConfigError where the model has no layers to share out."""
    layers = getattr(getattr(model, "language_model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        kind = type(model).__name__
        raise ConfigError(
            f"train.sharding: 'full' is not allowed; {kind} has no language_model.layers"
        )


def distribute(model: Any, reference: Any, accelerator: Accelerator, sharding: str) -> Any:
    """The model as it is trained: in parts, or whole in every process (DDP); as it is where there is one process.

    Args:
        model: on its device; is changed in place where it is shared out.
        reference: the frozen model, which is shared out with it if it has weights of its own, or None.
        accelerator: precision, and which processes there are.
        sharding: as `train.sharding` has it.
    """
    if sharding == "none" or accelerator.num_processes == 1:
        return accelerator.prepare(model)
    # torch's parts refer to each other in circles; those that are left when Python shuts down end the process by an abort
    atexit.register(gc.collect)
    prepared = accelerator.prepare_model(model, evaluation_mode=True)  # precision, without DDP
    shard(prepared, accelerator)
    if isinstance(reference, nn.Module):
        shard(reference, accelerator)
    return prepared


def shard(model: Any, accelerator: Accelerator) -> None:
    """Leaves to each process its part of every parameter of the transformer and of all that is trained."""
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    inside = set(model.language_model.parameters())
    whole = {p for p in model.parameters() if not p.requires_grad and p not in inside}
    for layer in model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    model.register_forward_hook(_own_storage)
    fully_shard(model, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
    for name in PASSES:
        register_fsdp_forward_method(model, name)
    assert all(isinstance(p, DTensor) for p in model.parameters() if p not in whole)


def _own_storage(model: Any, inputs: Any, output: dict[str, Tensor]) -> dict[str, Tensor]:
    """No views: FSDP2 hangs its backward hooks on outputs, and warns that changing a view in place would drop them."""
    return {name: tensor.clone() for name, tensor in output.items()}


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """What a pass gathers stays whole until the end: sampling gathers once, and not once for every token."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def whole(tree: Any, *, keep: bool = True) -> Any:
    """A tree of dicts and lists with whole tensors, on the CPU, in place of those in parts; all processes must call it.

    Args:
        tree: such as an optimizer's state_dict; what is not in parts comes back as it is.
        keep: False leaves empty tensors in their place, for a process that only lends its parts.
    """
    if isinstance(tree, DTensor):
        found = tree.full_tensor()
        return found.cpu() if keep else found.new_empty(0)
    if isinstance(tree, Mapping):
        return {name: whole(value, keep=keep) for name, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value, keep=keep) for value in tree]
    return tree


def part_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor that every process has, if the parameter is in parts."""
    if not isinstance(parameter, DTensor):
        return tensor
    mesh, places = parameter.device_mesh, parameter.placements
    return distribute_tensor(tensor.to(parameter.device), mesh, places, src_data_rank=None)


def optimizer_parts(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's whole state_dict with this process's parts of what belongs to parameters in parts.

    Raises:
        ValueError: it belongs to parameters of other shapes.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameters[i].shape:
                raise ValueError(f"{name} of parameter {i} has shape {tuple(value.shape)}")
    found = {
        i: {
            name: part_like(value, parameters[i])
            if isinstance(value, Tensor) and value.shape == parameters[i].shape
            else value
            for name, value in entries.items()
        }
        for i, entries in state["state"].items()
    }
    return {**state, "state": found}
