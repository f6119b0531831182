"""Decoding in steps of fixed shapes: whole buffers, and every position on the device, so that a CUDA graph can replay a step.

Reads more of the cache than `LlamaImageModel.advance`, whose view of it grows by one position at a time: slower where
nothing is replayed. Samples nothing.

Shapes: P prompts, B = P*G samples, rows = 2B (B without negatives), L prompt positions, D hidden size, V codes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from .decoding import BufferedLayer, DecodingState, branches, expanded_buffers, run_backbone

# The view of the cache grows by pieces, of at least so many positions, and at most so many of them: with larger ones more
# is read in vain, with smaller ones more kinds of steps are to be recorded.
PIECE, PIECES = 256, 8
ALIGNED = 8  # attention on a GPU copies masks whose length is no multiple of it


class StepKind(NamedTuple):
    """Attributes:
    inputs: that the code just sampled becomes.
    visible: positions of the cache that are read.
    """

    inputs: int
    visible: int


class View:
    """What a step writes and reads of every layer's buffers.

    Attributes:
        slots: (inputs,) where its keys and values go.
        visible: positions that it reads.
    """

    slots: Tensor
    visible: int


class FixedLayer(BufferedLayer):
    """Buffers that are written where a tensor says."""

    def __init__(self, keys: Tensor, values: Tensor, view: View) -> None:
        super().__init__(keys, values)
        self.view = view

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        slots, visible = self.view.slots, self.view.visible
        # autocast gives new values another number format than the filled cache has
        self.keys.index_copy_(2, slots, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, slots, value_states.to(self.values.dtype))
        return self.keys[:, :, :visible], self.values[:, :, :visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.view.visible, 0

    def get_seq_length(self) -> Tensor:
        return self.view.slots[-1] + 1  # as transformers' own StaticLayer: on the device


class FixedDecoding:
    """See `FixedSteps`. Rows as in `DecodingState`, which it begins with.

    Args:
        model: a LlamaImageModel.
        state: of the prompts.
        group_size: rows per prompt row.
    """

    def __init__(self, model: Any, state: DecodingState, group_size: int) -> None:
        self.model, self.has_negatives = model, state.has_negatives
        self.features = state.features.repeat_interleave(group_size, 0)
        self.prompt = state.cache.get_seq_length()
        self.length = _rounded(self.prompt + model.image_inputs, ALIGNED)
        self.piece = _rounded(max(PIECE, self.length // PIECES), ALIGNED)
        buffers = expanded_buffers(state.cache, group_size, self.length)
        self.view = View()
        self.cache = Cache(layers=[FixedLayer(*both, self.view) for both in buffers])
        self.dtype, device = buffers[0][0].dtype, model.device
        mask = state.attention_mask
        if mask is None:  # one row stands for all
            mask = torch.ones(1, self.prompt, dtype=torch.bool, device=device)
        else:
            mask = mask.repeat_interleave(group_size, 0)
        image = mask.new_ones(len(mask), self.length - self.prompt)
        self.allowed = torch.cat([mask, image], 1)  # (rows or 1, length)
        self.position = state.position.repeat_interleave(group_size, 0)  # (rows, 1), rotary
        self.slot = torch.full((1,), self.prompt, device=device)  # of the next input
        self.fed = torch.zeros(1, dtype=torch.long, device=device)  # codes so far

    @torch.no_grad()
    def first(self) -> tuple[Tensor, Tensor | None]:
        """The logits (B, V) of token 0 under both prompts."""
        return branches(self.model.head(self.features), self.has_negatives)

    def kind(self, t: int) -> StepKind:
        """Of the step that feeds token t - 1."""
        before, after = self.model.inputs_of(t - 1), self.model.inputs_of(t)
        visible = min(self.length, _rounded(self.prompt + after, self.piece))
        return StepKind(after - before, visible)

    @torch.no_grad()
    def advance(self, tokens: Tensor, kind: StepKind) -> tuple[Tensor, Tensor | None]:
        """(B,) codes just sampled to the next logits (B, V) of both branches."""
        rows = tokens.repeat(2) if self.has_negatives else tokens
        new = torch.arange(kind.inputs, device=tokens.device)
        self.view.slots, self.view.visible = self.slot + new, kind.visible
        features, _ = run_backbone(
            self.model.language_model,
            cache=self.cache,
            inputs_embeds=self.model.embed_step(rows[:, None], self.fed, kind.inputs),
            attention_mask=self._mask(),
            position_ids=self.position + 1 + new,
            use_cache=True,
        )
        self.slot.add_(kind.inputs)
        self.position.add_(kind.inputs)
        self.fed.add_(1)
        return branches(self.model.head(features[:, -1]), self.has_negatives)

    def _mask(self) -> Tensor:
        """(rows or 1, 1, inputs, visible), added to the attention's logits: each input sees what came before it."""
        places = torch.arange(self.view.visible, device=self.slot.device)
        seen = self.allowed[:, None, None, : self.view.visible] & (
            places <= self.view.slots[:, None]
        )
        return torch.zeros_like(seen, dtype=self.dtype).masked_fill_(~seen, -math.inf)


def _rounded(number: int, unit: int) -> int:
    """Up to a multiple."""
    return -(-number // unit) * unit
