"""A Llama backbone that predicts image tokens: prefill, cached decoding under two prompts, one training pass.

Serves every generator of this build (text and image embeddings in, image head out): a subclass says how prompts
become token ids and how images become codes. Sampling is not done here.

Shapes: P prompts, B = P*G samples, L prompt tokens (left-padded), T image tokens, D hidden size, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from ..interfaces import Reference
from ..logprobs import STATISTICS, token_statistics

_NEEDS_NEGATIVE = {"negative_logprobs", "full_kl", "code_shift"}


@dataclass(frozen=True)
class TokenCondition:
    """Prompts as token ids: P positives, then P negatives where there are any.

    Attributes:
        input_ids: (2P, L) or (P, L), left-padded.
        attention_mask: same shape, True = a token of the prompt.
        prompts: P.
    """

    input_ids: Tensor
    attention_mask: Tensor
    prompts: int

    @property
    def has_negatives(self) -> bool:
        return len(self.input_ids) == 2 * self.prompts

    def select(self, index: Tensor) -> TokenCondition:
        """The condition of the prompts at `index` (N,), repeats allowed: N positives, then N negatives."""
        rows = torch.cat([index, index + self.prompts]) if self.has_negatives else index
        mask = self.attention_mask[rows]
        used = mask.any(0).nonzero()[0].item()  # columns of pure padding are dropped
        return TokenCondition(self.input_ids[rows, used:], mask[:, used:], len(index))

    def positives(self) -> TokenCondition:
        """The condition without its negatives."""
        return TokenCondition(
            self.input_ids[: self.prompts], self.attention_mask[: self.prompts], self.prompts
        )

    def negatives(self) -> TokenCondition:
        """The negatives as a condition of their own."""
        return TokenCondition(
            self.input_ids[self.prompts :], self.attention_mask[self.prompts :], self.prompts
        )


class PreallocatedLayer(CacheLayerMixin):
    """One layer's keys and values in buffers of full length, (N, heads, length, head_dim), written in place."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self.keys, self.values, self.used = keys, values, used
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("the buffers exist from the start")

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

    def get_max_length(self) -> int:
        return self.keys.shape[-2]


@dataclass
class DecodingState:
    """What cached decoding knows: positives' rows first, negatives' after them.

    Attributes:
        cache: keys and values of every row.
        features: (rows, D) last hidden state, from which the next token is predicted.
        attention_mask: (rows, L + T) True = may be attended to; None where no prompt is padded.
        position: (rows,) rotary position of the next token.
        generated: image tokens taken so far.
        has_negatives: whether the second half of the rows is the negative branch.
    """

    cache: Cache
    features: Tensor
    attention_mask: Tensor | None
    position: Tensor
    generated: int
    has_negatives: bool


class LlamaImageModel(nn.Module):
    """Decoding and training pass over `language_model`; `image_embedding`, `image_head` and `vq` are a subclass's."""

    grid: tuple[int, int]
    codebook_size: int
    language_model: LlamaModel
    logits_at_once = (
        2**24
    )  # values, 64 MiB in float32: as many token positions as fit share a chunk of the head

    @property
    def device(self) -> torch.device:
        return next(self.language_model.parameters()).device

    @property
    def codebook(self) -> Tensor:
        """(V, C) code vectors of the image tokenizer."""
        raise NotImplementedError

    def embed_image_tokens(self, tokens: Tensor, first: int) -> Tensor:
        """(N, n) codes at raster positions first, first + 1, ... to input embeddings (N, n, D)."""
        raise NotImplementedError

    def head(self, features: Tensor) -> Tensor:
        """(..., D) hidden states to logits (..., V) over the image codes."""
        raise NotImplementedError

    # Decoding

    @torch.no_grad()
    def prefill(self, condition: TokenCondition) -> DecodingState:
        """Runs each prompt once; 2P rows (P without negatives)."""
        mask = condition.attention_mask
        position = mask.long().cumsum(1) - 1
        out = self.language_model(
            inputs_embeds=self.language_model.get_input_embeddings()(condition.input_ids),
            attention_mask=mask,
            position_ids=position.clamp(min=0),
            use_cache=True,
        )
        return DecodingState(
            cache=out.past_key_values,
            features=out.last_hidden_state[:, -1],
            attention_mask=None if bool(mask.all()) else mask,
            position=position[:, -1] + 1,
            generated=0,
            has_negatives=condition.has_negatives,
        )

    @torch.no_grad()
    def expand(self, state: DecodingState, group_size: int) -> DecodingState:
        """`group_size` rows per prompt row, in buffers that hold the whole image."""
        tokens = self.grid[0] * self.grid[1]
        layers = []
        for layer in state.cache.layers:
            buffers = []
            for filled in (layer.keys, layer.values):
                n, heads, length, dim = filled.shape
                buffer = filled.new_empty(n * group_size, heads, length + tokens - 1, dim)
                buffer[:, :, :length] = filled.repeat_interleave(group_size, 0)
                buffers.append(buffer)
            layers.append(PreallocatedLayer(buffers[0], buffers[1], length))
        mask = state.attention_mask
        if mask is not None:
            mask = mask.repeat_interleave(group_size, 0)
            mask = torch.cat([mask, mask.new_ones(len(mask), tokens)], 1)
        return DecodingState(
            cache=Cache(layers=layers),
            features=state.features.repeat_interleave(group_size, 0),
            attention_mask=mask,
            position=state.position.repeat_interleave(group_size),
            generated=0,
            has_negatives=state.has_negatives,
        )

    @torch.no_grad()
    def advance(self, state: DecodingState, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One decoding step: (B,) codes just sampled (None at the first) to the next logits of both branches."""
        if tokens is not None:
            rows = tokens.repeat(2) if state.has_negatives else tokens
            length = state.cache.get_seq_length() + 1
            mask = state.attention_mask
            out = self.language_model(
                inputs_embeds=self.embed_image_tokens(rows[:, None], state.generated),
                # a prepared 4-D mask passes through as it is
                attention_mask=None if mask is None else mask[:, None, None, :length],
                position_ids=state.position[:, None],
                past_key_values=state.cache,
                use_cache=True,
            )
            state.features = out.last_hidden_state[:, -1]
            state.position = state.position + 1
            state.generated += 1
        logits = self.head(state.features)
        if not state.has_negatives:
            return logits, None
        half = len(logits) // 2
        return logits[:half], logits[half:]

    # Training

    def _features(self, condition: TokenCondition, tokens: Tensor) -> Tensor:
        """The hidden states that predict each image token: (rows, T, D), rows as in the condition, times G.

        A prompt runs once and its keys and values are shared by the samples of its group, gradients included; where
        every sample has a prompt of its own, both run together.
        """
        group = len(tokens) // condition.prompts
        if group == 1:
            return self._features_alone(condition, tokens)
        mask = condition.attention_mask
        padded = not bool(mask.all())
        position = (mask.long().cumsum(1) - 1).clamp(min=0)
        prompt = self.language_model(
            inputs_embeds=self.language_model.get_input_embeddings()(condition.input_ids),
            attention_mask=mask if padded else None,
            position_ids=position,
            use_cache=True,
        )
        first = prompt.last_hidden_state[:, -1:].repeat_interleave(group, 0)
        if tokens.shape[1] == 1:
            return first
        shared = DynamicCache()
        for i, layer in enumerate(prompt.past_key_values.layers):
            keys, values = (x.repeat_interleave(group, 0) for x in (layer.keys, layer.values))
            shared.update(keys, values, i)
        inputs = tokens[:, :-1].repeat(2 if condition.has_negatives else 1, 1)
        new = inputs.shape[1]
        seen = torch.ones(new, new, dtype=torch.bool, device=mask.device).tril()[None, None]
        before = mask if padded else mask[:1]
        before = before.repeat_interleave(group if padded else 1, 0)[:, None, None]
        rows = len(before)
        rest = self.language_model(
            inputs_embeds=self.embed_image_tokens(inputs, 0),
            attention_mask=torch.cat(
                [before.expand(-1, -1, new, -1), seen.expand(rows, -1, -1, -1)], 3
            ),
            position_ids=position[:, -1:].repeat_interleave(group, 0)
            + torch.arange(1, new + 1, device=mask.device),
            past_key_values=shared,
            use_cache=True,
        )
        return torch.cat([first, rest.last_hidden_state], 1)

    def _features_alone(self, condition: TokenCondition, tokens: Tensor) -> Tensor:
        """`_features` for samples that share no prompt, in one pass."""
        inputs = tokens[:, :-1].repeat(2 if condition.has_negatives else 1, 1)
        words = self.language_model.get_input_embeddings()(condition.input_ids)
        mask = condition.attention_mask
        full = torch.cat([mask, mask.new_ones(inputs.shape)], 1)
        out = self.language_model(
            inputs_embeds=torch.cat([words, self.embed_image_tokens(inputs, 0)], 1),
            attention_mask=None if bool(mask.all()) else full,
            position_ids=(full.long().cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        return out.last_hidden_state[:, words.shape[1] - 1 :]

    def forward(
        self,
        condition: TokenCondition,
        tokens: Tensor,
        *,
        want: Sequence[str],
        reference: Reference | None = None,
        cfg_scale: float = 1.0,
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        """Statistics of given tokens: {name: (B, T) float32}; see `ImageTokenModel`.

        The negative branch is computed only if something wanted depends on it, and alone if nothing else is wanted.
        """
        assert set(want) <= set(STATISTICS), want
        if tuple(want) == ("negative_logprobs",):
            found = self.forward(condition.negatives(), tokens, want=("logprobs",))
            return {"negative_logprobs": found["logprobs"]}
        guided = cfg_scale != 1.0 and any(name.startswith("guided_") for name in want)
        negative = guided or bool(_NEEDS_NEGATIVE & set(want))
        if not negative:
            condition = condition.positives()
        features = self._features(condition, tokens)
        return token_statistics(
            want,
            tokens,
            features[: len(tokens)],
            features[len(tokens) :] if negative else None,
            self.head,
            cfg_scale=cfg_scale,
            temperature=temperature,
            reference=reference,
            codebook=self.codebook,
            chunk_rows=max(1, self.logits_at_once // self.codebook_size),
        )

    @torch.no_grad()
    def reference(self, condition: TokenCondition, tokens: Tensor) -> Reference:
        """This (frozen) model's side of a Hellinger distance."""
        features = self._features(condition, tokens)
        half = len(tokens)
        return Reference(
            features[:half], features[half:] if condition.has_negatives else None, self.head
        )
