"""What a generator with a transformers backbone decodes with: encoded prompts, preallocated cache, state, and how the
backbone is called. Samples nothing.

Shapes: P prompts, L prompt positions (left-padded), T image tokens, D hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache as remembered
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ..errors import ModelError
from ..prompts.limits import shortened
from .bounds import require_ids


@dataclass(frozen=True)
class PromptCondition:
    """Encoded prompts: P positives, then P negatives where there are any.

    Attributes:
        inputs: (2P, L) or (P, L) token ids, or text features with one more dimension; left-padded.
        attention_mask: (2P, L) or (P, L), True = a position of the prompt.
        prompts: P.
    """

    inputs: Tensor
    attention_mask: Tensor
    prompts: int

    @property
    def has_negatives(self) -> bool:
        return len(self.inputs) == 2 * self.prompts

    def select(self, index: Tensor) -> PromptCondition:
        """The condition of the prompts at `index` (N,), repeats allowed: N positives, then N negatives."""
        rows = torch.cat([index, index + self.prompts]) if self.has_negatives else index
        mask = self.attention_mask[rows]
        used = mask.any(0).nonzero()[0].item()  # columns of pure padding are dropped
        return PromptCondition(self.inputs[rows][:, used:], mask[:, used:], len(index))

    def positives(self) -> PromptCondition:
        """The condition without its negatives."""
        return replace(
            self,
            inputs=self.inputs[: self.prompts],
            attention_mask=self.attention_mask[: self.prompts],
        )

    def negatives(self) -> PromptCondition:
        """The negatives as a condition of their own."""
        return replace(
            self,
            inputs=self.inputs[self.prompts :],
            attention_mask=self.attention_mask[self.prompts :],
        )


def require_room(text: str, tokens: int, most: int) -> None:
    """Raises ModelError for a prompt of more tokens than fit."""
    if tokens > most:
        raise ModelError(
            f"prompt {shortened(text)!r}: {tokens} tokens; the model takes at most {most}"
        )


def left_padded(
    rows: Sequence[Sequence[int]],
    pad: int,
    prompts: int,
    device: torch.device,
    *,
    words: int | None = None,
) -> PromptCondition:
    """Token ids of different lengths to a condition of `prompts` positives (and as many negatives).

    Args:
        words: of the embedding, which ids and `pad` must lie in; None = whatever comes is taken.

    Raises:
        ModelError: the tokenizer gave an id that is none.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    if words is not None:
        require_ids(ids, words, "tokenizer.json")
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) >= (longest - lengths)[:, None]
    return PromptCondition(ids.to(device), mask.to(device), prompts)


def run_backbone(
    backbone: Any, *, cache: Cache | None = None, **inputs: Any
) -> tuple[Tensor, Cache | None]:
    """Runs a transformers backbone: the last hidden states (rows, inputs, D) and the filled cache, if there is one.

    Args:
        cache: keys and values of what ran before; is filled.
        inputs: what else its `forward` takes: `inputs_embeds`, `attention_mask`, `position_ids`, `use_cache`.
    """
    mask = inputs.get("attention_mask")
    if mask is not None and mask.ndim == 4 and backbone.config._attn_implementation == "eager":
        dtype = inputs["inputs_embeds"].dtype  # which adds a mask to its scores
        blocked = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        inputs["attention_mask"] = blocked.masked_fill(~mask, torch.finfo(dtype).min)
    name = _cache_argument(type(backbone).forward)
    given = {} if cache is None else {name: cache}
    found = backbone(**inputs, **given)
    return found.last_hidden_state, getattr(found, name)


@remembered
def _cache_argument(forward: Callable[..., Any]) -> str:
    """What a backbone calls its cache: `cache` from transformers 5.24 on, which warns of the old name and drops it in
    5.40. Can go, and `cache` be written, once no supported transformers is older than 5.24."""
    named = "cache" in inspect.signature(forward).parameters
    return "cache" if named else "past_key_values"


class BufferedLayer(CacheLayerMixin):
    """One layer's keys and values in buffers of full length, (rows, heads, length, head_dim); who writes them is left open."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("the buffers exist from the start")

    def get_max_length(self) -> int:
        return self.keys.shape[-2]


class PreallocatedLayer(BufferedLayer):
    """Buffers that are written from `used` on, and read up to there."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__(keys, values)
        self.used = used

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        end = self.used + key_states.shape[-2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used


@dataclass
class DecodingState:
    """What cached decoding knows: positives' rows first, negatives' after them.

    Attributes:
        cache: keys and values of every row.
        features: (rows, D) last hidden state, from which the next token is predicted.
        attention_mask: (rows, L) True = may be attended to; None where no prompt is padded.
        position: (rows, 1) rotary position of the latest input.
        generated: image tokens taken so far.
        has_negatives: whether the second half of the rows is the negative branch.
    """

    cache: Cache
    features: Tensor
    attention_mask: Tensor | None
    position: Tensor
    generated: int
    has_negatives: bool


def expanded_cache(cache: Cache, group_size: int, room: int) -> Cache:
    """`group_size` rows per row of a filled cache, in buffers with room for so many positions more."""
    length = cache.get_seq_length()
    return Cache(
        layers=[
            PreallocatedLayer(keys, values, length)
            for keys, values in expanded_buffers(cache, group_size, length + room)
        ]
    )


def expanded_buffers(cache: Cache, group_size: int, length: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer of a filled cache, `group_size` rows per row, in buffers of so many positions.

    The rest is 0: what a mask hides still takes part, with weight 0, and 0 times whatever memory held may be NaN.
    """

    def expanded(filled: Tensor) -> Tensor:
        n, heads, used, dim = filled.shape
        buffer = filled.new_zeros(n * group_size, heads, length, dim)
        buffer[:, :, :used] = filled.repeat_interleave(group_size, 0)
        return buffer

    return [(expanded(layer.keys), expanded(layer.values)) for layer in cache.layers]


def branches(logits: Tensor, has_negatives: bool) -> tuple[Tensor, Tensor | None]:
    """(rows, V) to those under the positive and those under the negative prompt, (B, V) each."""
    if not has_negatives:
        return logits, None
    half = len(logits) // 2
    return logits[:half], logits[half:]


def causal_mask(before: Tensor, new: int) -> Tensor:
    """(rows, L) True = may be attended to, and `new` inputs after them, to a mask (rows, 1, new, L + new)."""
    seen = torch.ones(new, new, dtype=torch.bool, device=before.device).tril()
    rows = len(before)
    return torch.cat(
        [before[:, None, None].expand(-1, -1, new, -1), seen.expand(rows, 1, -1, -1)], 3
    )
