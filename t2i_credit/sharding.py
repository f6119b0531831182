"""Parameters, gradients and optimizer state in parts, one for each process: torch's `fully_shard` (FSDP2). Launches nothing.

A transformer layer is gathered for its pass and let go again; sampling gathers all of them once. What a model keeps
frozen outside its `language_model` (image tokenizer, text encoder, unused heads) stays whole in every process, because it is
used between passes. All processes gather together, so each must run as many passes as the others.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from .errors import ConfigError

# what runs the transformer besides `forward`
PASSES = ("prefill", "advance", "reference")


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
    """An optimizer's whole state_dict with this process's parts of what belongs to parameters in parts."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
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
