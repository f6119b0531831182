"""Decoding of a batch by CUDA graphs: a step is recorded once and replayed for every token, so that Python launches one
graph where it would launch hundreds of kernels. Where nothing can be recorded, sampling.py decodes step by step.

A graph reads the weights where they lie, so an update in place is seen; but adapters, precision and shapes may change
between two batches. Graphs therefore live as long as their batch, and their memory is free for the update.
Noise comes from the host before the first step: nothing here draws from a generator that a graph would have to know.

Shapes: B samples, T image tokens, V codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import T2ICreditWarning
from ..interfaces import FixedSteps

WARM_UP = 1  # steps of a kind before it is recorded: libraries set up in the first one what a recording must not

# logits (B, V) under both prompts and noise (B,) to {name: (B,) or (B, K)}, with the `tokens` among them
Draw = Callable[[Tensor, Tensor | None, Tensor], dict[str, Tensor]]


def eager_reason(model: Any) -> str | None:
    """Why steps of this model are not captured; None = they are."""
    if model.device.type != "cuda":
        return f"graphs are CUDA's, and the model is on {model.device.type}"
    if not getattr(model, "capturable", False):
        return "the model is not capturable"
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return "hooks run in its passes, as with parameters in parts; a replay would leave them out"
    return None


def sample_captured(
    model: Any, state: Any, group_size: int, noise: Tensor, draw: Draw
) -> dict[str, Tensor]:
    """All tokens of a batch in steps of fixed shapes: prefilled prompts and noise (B, T) to {name: (B, T) or (B, T, K)}.

    What cannot be recorded is told once, and the model is not tried again.
    """
    batch = Batch(model.fixed_steps(state, group_size), noise, draw)
    replayed = Replayed(batch.step, noise.device)
    for t in range(1, noise.shape[1]):
        replayed(batch.steps.kind(t))
    if replayed.failed is not None:
        model.capturable = False
        warnings.warn(
            f"decoding step by step, which is slow: CUDA cannot capture a step of {type(model).__name__}: "
            f"{replayed.failed}",
            T2ICreditWarning,
            stacklevel=2,
        )
    return batch.kept


class Batch:
    """A batch whose tokens so far, and whose place among them, lie on the device.

    Attributes:
        kept: {name: (B, T) or (B, T, K)}.
    """

    def __init__(self, steps: FixedSteps, noise: Tensor, draw: Draw) -> None:
        self.steps, self.noise, self.draw = steps, noise, draw
        self.place = torch.zeros(1, dtype=torch.long, device=noise.device)  # of the next token
        first = draw(*steps.first(), noise[:, 0])
        self.kept = {
            name: column.new_empty(*noise.shape, *column.shape[1:])
            for name, column in first.items()
        }
        self.taken = torch.empty_like(first["tokens"])
        self._keep(first)

    def step(self, kind: Hashable) -> None:
        """Draws one more token. No shape and no Python number depends on which."""
        positive, negative = self.steps.advance(self.taken, kind)
        self._keep(self.draw(positive, negative, self.noise.index_select(1, self.place)[:, 0]))

    def _keep(self, columns: dict[str, Tensor]) -> None:
        for name, column in columns.items():
            self.kept[name].index_copy_(1, self.place, column[:, None])
        self.taken.copy_(columns["tokens"])
        self.place.add_(1)


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where steps run first and are then recorded. One for all batches: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)


class Replayed:
    """A step of several kinds, each run as it is at first, then recorded, then replayed.

    Attributes:
        failed: why nothing is recorded any more.
    """

    def __init__(self, step: Callable[[Hashable], None], device: torch.device) -> None:
        self.step, self.device = step, device
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self.runs: dict[Hashable, int] = {}
        self.failed: str | None = None
        self.stream = side_stream(device)
        self.pool = torch.cuda.graph_pool_handle()  # no step leaves anything there for another

    def __call__(self, kind: Hashable) -> None:
        self.runs[kind] = self.runs.get(kind, 0) + 1
        if self.failed is None and self.runs[kind] > WARM_UP and kind not in self.graphs:
            self._record(kind)
        if kind in self.graphs:
            self.graphs[kind].replay()
        else:
            self._run(kind)

    def _run(self, kind: Hashable) -> None:
        """On the side stream, as PyTorch asks for of steps that are to be recorded."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            self.step(kind)
        current.wait_stream(self.stream)

    def _record(self, kind: Hashable) -> None:
        """Records a step, which does not run it. Its kind has run before: what fails here is the recording."""
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, such as those that watch over processes, may go on with what they do
            with torch.cuda.graph(
                graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
            ):
                self.step(kind)
        except RuntimeError as error:
            refusal = error.__context__ or error  # ending a broken recording is refused as well
            self.failed = str(refusal).partition("\n")[0]
        else:
            self.graphs[kind] = graph
