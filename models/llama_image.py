"""A Llama backbone that predicts image tokens: prefill, cached decoding under two prompts, one training pass.

Serves every generator here (text and image embeddings in, image head out): a subclass says how prompts are encoded,
which inputs an image token becomes, and how images become codes. Sampling is not done here.

Shapes: P prompts, B = P*G samples, L prompt positions (left-padded), T image tokens, D hidden size, V codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ..interfaces import Reference
from ..rollout.logprobs import STATISTICS, token_statistics
from .decoding import (
    DecodingState,
    PromptCondition,
    branches,
    causal_mask,
    expanded_cache,
    run_backbone,
)
from .fixed_decoding import FixedDecoding

_NEEDS_NEGATIVE = {"negative_logprobs", "full_kl", "code_shift"}


class LlamaImageModel(nn.Module):
    """Decoding and training pass over `language_model`; embeddings, head and image tokenizer are a subclass's.

    Attributes:
        recompute: layers are recomputed in the backward pass, which saves their activations' memory.
        capturable: False where steps of fixed shapes were tried and failed, or where somebody must see every step.
    """

    grid: tuple[int, int]
    codebook_size: int
    language_model: PreTrainedModel
    recompute = False
    capturable = True
    # As many token positions as fit share a chunk of the head. 16 MiB in float32: small enough that a CPU's allocator
    # keeps the memory for the next chunk, where it would fault larger ones in anew.
    logits_at_once = 2**22

    @property
    def device(self) -> torch.device:
        return next(self.language_model.parameters()).device

    @property
    def words(self) -> int:
        """Tokens of the text that the model knows."""
        return len(self.language_model.get_input_embeddings().weight)

    @property
    def codebook(self) -> Tensor:
        """(V, C) code vectors of the image tokenizer."""
        raise NotImplementedError

    def check(self, prompts: Sequence[str]) -> list[str]:
        """Lines about what the model does not read of its prompts.

        Raises:
            ModelError: one is too long for it.
        """
        for text in dict.fromkeys(prompts):
            self.condition([text], None)
        return []

    # What a subclass says

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """See `ImageTokenModel`."""
        raise NotImplementedError

    def embed_prompts(self, inputs: Tensor) -> Tensor:
        """A condition's inputs (N, L, ...) to input embeddings (N, L, D)."""
        return self.language_model.get_input_embeddings()(inputs)

    def prompt_positions(self, mask: Tensor) -> Tensor:
        """Rotary positions (N, L) of prompts with this mask; an image's inputs count on from the last one."""
        return (mask.long().cumsum(1) - 1).clamp(min=0)

    def embed_image_tokens(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        """(N, n) codes at raster positions first, first + 1, ... to input embeddings (N, m, D).

        m is n, or more where the model's sequences hold structure tokens between image tokens. In a step of fixed
        shapes `first` is (1,), on the device.
        """
        raise NotImplementedError

    def embed_step(self, tokens: Tensor, first: Tensor, inputs: int) -> Tensor:
        """(N, 1) codes at the raster position `first` (1,) to (N, inputs, D); to be overridden with `inputs_of`."""
        return self.embed_image_tokens(tokens, first)

    def predicting(self, first: int, count: int) -> Tensor | slice:
        """Which of the m inputs of `embed_image_tokens` predict the next code: one for each of `count` tokens."""
        return slice(None)

    def inputs_of(self, codes: int) -> int:
        """Inputs that the first so many image tokens become, structure tokens behind them included."""
        return codes

    @property
    def image_inputs(self) -> int:
        """Inputs that all tokens but the last one become."""
        return self.inputs_of(self.grid[0] * self.grid[1] - 1)

    def head(self, features: Tensor) -> Tensor:
        """(..., D) hidden states to logits (..., V) over the image codes."""
        raise NotImplementedError

    # Decoding

    @torch.no_grad()
    def prefill(self, condition: PromptCondition) -> DecodingState:
        """Runs each prompt once; 2P rows (P without negatives)."""
        mask = condition.attention_mask
        position = self.prompt_positions(mask)
        features, cache = run_backbone(
            self.language_model,
            inputs_embeds=self.embed_prompts(condition.inputs),
            attention_mask=mask,
            position_ids=position,
            use_cache=True,
        )
        assert cache is not None
        return DecodingState(
            cache=cache,
            features=features[:, -1],
            attention_mask=None if bool(mask.all()) else mask,
            position=position[:, -1:],
            generated=0,
            has_negatives=condition.has_negatives,
        )

    @torch.no_grad()
    def expand(self, state: DecodingState, group_size: int) -> DecodingState:
        """`group_size` rows per prompt row, in buffers that hold the whole image."""
        mask = state.attention_mask
        if mask is not None:
            mask = mask.repeat_interleave(group_size, 0)
            mask = torch.cat([mask, mask.new_ones(len(mask), self.image_inputs)], 1)
        return DecodingState(
            cache=expanded_cache(state.cache, group_size, self.image_inputs),
            features=state.features.repeat_interleave(group_size, 0),
            attention_mask=mask,
            position=state.position.repeat_interleave(group_size, 0),
            generated=0,
            has_negatives=state.has_negatives,
        )

    @torch.no_grad()
    def advance(self, state: DecodingState, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One decoding step: (B,) codes just sampled (None at the first) to the next logits of both branches."""
        if tokens is not None:
            rows = tokens.repeat(2) if state.has_negatives else tokens
            inputs = self.embed_image_tokens(rows[:, None], state.generated)
            new = inputs.shape[1]
            mask, used = state.attention_mask, state.cache.get_seq_length()
            features, _ = run_backbone(
                self.language_model,
                cache=state.cache,
                inputs_embeds=inputs,
                # a prepared 4-D mask passes through as it is
                attention_mask=None if mask is None else causal_mask(mask[:, :used], new),
                position_ids=state.position + torch.arange(1, new + 1, device=tokens.device),
                use_cache=True,
            )
            state.features = features[:, -1]
            state.position = state.position + new
            state.generated += 1
        return branches(self.head(state.features), state.has_negatives)

    def fixed_steps(self, state: DecodingState, group_size: int) -> FixedDecoding:
        """As `expand`, for steps of fixed shapes, which a GPU can replay."""
        return FixedDecoding(self, state, group_size)

    # Training

    def prefix_features(self, condition: PromptCondition, tokens: Tensor) -> Tensor:
        """What the transformer knows before each token and after the last, under the positive prompt: (B, T + 1, D)."""
        # what stands last is not read
        return self._features(condition.positives(), F.pad(tokens, (0, 1)))

    def _features(self, condition: PromptCondition, tokens: Tensor) -> Tensor:
        """The hidden states that predict each image token: (rows, T, D), rows as in the condition, times G.

        A prompt runs once and its keys and values are shared by the samples of its group, gradients included; where
        every sample has a prompt of its own, or layers are recomputed (which a cache does not survive), both run
        together.
        """
        group = len(tokens) // condition.prompts
        if group == 1 or self.recompute:
            owners = torch.arange(condition.prompts, device=tokens.device).repeat_interleave(group)
            return self._features_alone(condition.select(owners), tokens)
        mask = condition.attention_mask
        padded = not bool(mask.all())
        position = self.prompt_positions(mask)
        prompt, cache = run_backbone(
            self.language_model,
            inputs_embeds=self.embed_prompts(condition.inputs),
            attention_mask=mask if padded else None,
            position_ids=position,
            use_cache=True,
        )
        first = prompt[:, -1:].repeat_interleave(group, 0)
        if tokens.shape[1] == 1:
            return first
        assert cache is not None
        shared = DynamicCache()
        for i, layer in enumerate(cache.layers):
            keys, values = (x.repeat_interleave(group, 0) for x in (layer.keys, layer.values))
            shared.update(keys, values, i)
        inputs = self._image_inputs(condition, tokens)
        new = inputs.shape[1]
        before = mask.repeat_interleave(group, 0) if padded else mask[:1]
        rest, _ = run_backbone(
            self.language_model,
            cache=shared,
            inputs_embeds=inputs,
            attention_mask=causal_mask(before, new),
            position_ids=position[:, -1:].repeat_interleave(group, 0)
            + torch.arange(1, new + 1, device=mask.device),
            use_cache=True,
        )
        wanted = self.predicting(0, tokens.shape[1] - 1)
        return torch.cat([first, rest[:, wanted]], 1)

    def _features_alone(self, condition: PromptCondition, tokens: Tensor) -> Tensor:
        """`_features` for as many prompts as samples, in one pass."""
        words = self.embed_prompts(condition.inputs)
        inputs = self._image_inputs(condition, tokens)
        mask = condition.attention_mask
        position = self.prompt_positions(mask)
        new = torch.arange(1, inputs.shape[1] + 1, device=mask.device)
        with self._recomputing():
            features, _ = run_backbone(
                self.language_model,
                inputs_embeds=torch.cat([words, inputs], 1),
                attention_mask=None
                if bool(mask.all())
                else torch.cat([mask, mask.new_ones(inputs.shape[:2])], 1),
                position_ids=torch.cat([position, position[:, -1:] + new], 1),
                use_cache=False,
            )
        states = features[:, words.shape[1] - 1 :]
        wanted = self.predicting(0, tokens.shape[1] - 1)
        return torch.cat([states[:, :1], states[:, 1:][:, wanted]], 1)

    def _image_inputs(self, condition: PromptCondition, tokens: Tensor) -> Tensor:
        """(B, T) codes to the input embeddings of all but the last, for both branches where there are two."""
        return self.embed_image_tokens(
            tokens[:, :-1].repeat(2 if condition.has_negatives else 1, 1), 0
        )

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Layers are checkpointed inside, if asked for. They ask whether they are training, which nothing else
        should: dropout would make the pass disagree with sampling."""
        wanted = self.recompute and torch.is_grad_enabled()
        layers = list(self.language_model.layers) if wanted else []
        if layers and not layers[0].gradient_checkpointing:
            self.language_model.activation_checkpointing_enable()
            # It also hooks the embeddings, which checkpoints of this kind do not need, and steps with hooks are not
            # captured.
            self.language_model.disable_input_require_grads()
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def forward(
        self,
        condition: PromptCondition,
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
    def reference(self, condition: PromptCondition, tokens: Tensor) -> Reference:
        """This (frozen) model's side of a Hellinger distance."""
        features = self._features(condition, tokens)
        half = len(tokens)
        return Reference(
            features[:half], features[half:] if condition.has_negatives else None, self.head
        )
