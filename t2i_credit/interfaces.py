"""The contracts that every part agrees on: prompts, rollouts, image-token models, rewards. Holds no algorithm.

Shapes: P prompts, G samples of each, B = P*G samples (sample b belongs to prompt b // G), T = H*W image tokens
in raster order, V codebook entries. Masks: True = counts in the loss. Log-probabilities are float32 nats.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import ModelError, TrainingError, not_of_plugin, one_line


@dataclass(frozen=True)
class Prompt:
    """One prompt and what is known about it.

    Attributes:
        text: the positive prompt.
        negative: the negative prompt; None = the model's own null prompt (an empty string is a text).
        spec: the whole official GenEval record (tag, include, exclude), or None.
        reference: path of a golden reference image, or None.
    """

    text: str
    negative: str | None = None
    spec: Mapping[str, Any] | None = None
    reference: str | None = None


class Condition(Protocol):
    """The encoded prompts of one batch: P positives, then P negatives (or P positives alone)."""

    @property
    def prompts(self) -> int:
        """P, the number of positive rows."""
        ...

    @property
    def has_negatives(self) -> bool: ...

    def select(self, index: Tensor) -> Condition:
        """The condition of the prompts at `index` (N,), repeats allowed: N positives, then N negatives."""
        ...


@dataclass(frozen=True)
class Reference:
    """The frozen side of a training pass: what a model needs to form the reference distribution in chunks.

    Attributes:
        features: (B, T, D) last hidden states under the positive prompt.
        negative_features: (B, T, D) under the negative prompt, or None.
        head: maps features (..., D) to logits (..., V).
    """

    features: Tensor
    negative_features: Tensor | None
    head: Callable[[Tensor], Tensor]


@runtime_checkable
class ImageTokenModel(Protocol):
    """What a generator must offer: an autoregressive transformer over the T = H*W codes of an image tokenizer.

    A model whose sequences hold structure tokens (row ends) inserts and drops them itself, and restricts its
    logits to the V image codes. Sampling (guidance, temperature, truncation, noise) is rollout/sampling.py's.
    """

    grid: tuple[int, int]
    codebook_size: int

    @property
    def codebook(self) -> Tensor:
        """(V, C) code vectors of the image tokenizer."""
        ...

    @property
    def device(self) -> torch.device: ...

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> Condition:
        """Encodes P prompts and their negatives (None in the list = the null prompt of that positive; no list at
        all = no negative branch)."""
        ...

    def prefill(self, condition: Condition) -> Any:
        """Runs the prompts once; returns a decoding state of 2P rows (P without negatives)."""
        ...

    def expand(self, state: Any, group_size: int) -> Any:
        """The state of 2*P*group_size rows: keys and values copied into a preallocated cache."""
        ...

    def advance(self, state: Any, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One decoding step. `tokens` (B,) are the codes just sampled, None at the first step.

        Returns the next token's logits (B, V) under the positive and under the negative prompt."""
        ...

    def __call__(
        self,
        condition: Condition,
        tokens: Tensor,
        *,
        want: Sequence[str],
        reference: Reference | None = None,
        cfg_scale: float = 1.0,
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        """The only entry of a training pass (`forward`), so that the hooks of DDP and FSDP fire.

        Args:
            condition: P prompts; row b of `tokens` belongs to prompt b // (B // P).
            tokens: (B, T) codes.
            want: names out of logprobs, negative_logprobs, guided_logprobs, entropy, guided_entropy, full_kl,
                code_spread, code_shift, hellinger, guided_hellinger (the last two need `reference`).
            cfg_scale, temperature: of the guided distribution.

        Returns:
            {name: (B, T) float32}, differentiable.
        """
        ...

    def reference(self, condition: Condition, tokens: Tensor) -> Reference:
        """Runs this (frozen) model without gradient and returns its side of a Hellinger distance."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to images (B, 3, h, w) in [0, 1]."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [0, 1] to codes (B, T)."""
        ...

    def save_pretrained(self, folder: str) -> None:
        """Writes the model in the Hugging Face layout."""
        ...


class FixedSteps(Protocol):
    """Decoding whose whole state lies on the device, so that one recorded step can be replayed for many tokens."""

    def first(self) -> tuple[Tensor, Tensor | None]:
        """The logits (B, V) of token 0, which the prompts alone predict, under both prompts."""
        ...

    def kind(self, t: int) -> Hashable:
        """What tells the step that predicts token t, from 1 on, from others: steps of one kind run the same operations
        on the same memory."""
        ...

    def advance(self, tokens: Tensor, kind: Hashable) -> tuple[Tensor, Tensor | None]:
        """Feeds the codes just sampled, (B,), to the logits of the next ones; in the order of the tokens."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A batch of sampled token grids with everything that sampling knew about them.

    Attributes:
        prompts: list of B prompts (each repeated G times).
        group_size: G.
        tokens: (B, T) int64.
        mask: (B, T) bool, True = counts in the loss.
        logprobs: (B, T) of the token under the positive prompt, temperature 1.
        negative_logprobs: (B, T) under the negative prompt, temperature 1; None if that branch never ran.
        guided_logprobs: (B, T) under the guided, tempered distribution, before truncation.
        sampling_logprobs: (B, T) after top-k and top-p.
        entropy: (B, T) nats, of the positive branch.
        images: (B, 3, h, w) in [0, 1].
        full_kl: (B, T) KL(positive || negative) over all codes, if asked for.
        guided_entropy: (B, T) nats, of the guided distribution, if asked for.
        code_spread: (B, T) how different the likely codes of the positive branch look, if asked for.
        code_shift: (B, T) how far the negative prompt moves their mean look, if asked for.
        alternatives: (B, T, K) int64, the likeliest codes but the taken one under the guided, tempered distribution, in
            order, if asked for; -1 in a golden reference, which was not sampled.
        alternative_logprobs: (B, T, K) theirs, before truncation.
        values: (B, T + 1) the critic's expectation of the reward before each token and after the last, if there is one.
        value_advantage: (B, T) its change at each token in units of the advantage, as far as the critic is believed.
        reward_map: (B, T) where the reward looked, signed: above 0 where a token raised it; None if no part says so.
        gold: (B,) bool, True = a golden reference and not a sample of the model.
    """

    prompts: list[Prompt]
    group_size: int
    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    negative_logprobs: Tensor | None
    guided_logprobs: Tensor
    sampling_logprobs: Tensor
    entropy: Tensor
    images: Tensor
    full_kl: Tensor | None = None
    guided_entropy: Tensor | None = None
    code_spread: Tensor | None = None
    code_shift: Tensor | None = None
    alternatives: Tensor | None = None
    alternative_logprobs: Tensor | None = None
    values: Tensor | None = None
    value_advantage: Tensor | None = None
    reward_map: Tensor | None = None
    gold: Tensor = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.gold is None:
            gold = torch.zeros(len(self.prompts), dtype=torch.bool, device=self.tokens.device)
            object.__setattr__(self, "gold", gold)

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Tensor) -> Rollout:
        """The rollout of the samples at `rows` (N,); the group size is kept, so rows should be whole groups
        wherever advantages are still to be computed."""
        picked = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, prompts=[self.prompts[i] for i in rows.tolist()], **picked)

    def joined(self, other: Rollout) -> Rollout:
        """This rollout's samples, then the other's; a field that only one of them kept is dropped."""
        assert self.group_size == other.group_size, (self.group_size, other.group_size)
        both: dict[str, Any] = {
            f.name: _join(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.name not in ("prompts", "group_size")
        }
        return Rollout(prompts=[*self.prompts, *other.prompts], group_size=self.group_size, **both)


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])


@contextmanager
def plugin_errors(who: str) -> Iterator[None]:
    """What a plug-in raises becomes one line that names it.

    Args:
        who: the plug-in, such as "reward my_rewards:brightness".

    Raises:
        TrainingError: in place of any error that is not the user's own, or of too little memory.
    """
    try:
        yield
    except BaseException as error:  # also what is no Exception, such as SystemExit
        if not_of_plugin(error):
            raise
        said = f"{type(error).__name__}: {one_line(error)}"
        raise TrainingError(f"{who}: raised {said}; --verbose shows where") from error


def plugin_values(
    values: Any, shape: tuple[int, ...], who: str, *, mask: Tensor | None = None
) -> Tensor:
    """What a plug-in returned as a float32 tensor without gradient, on its own device.

    Args:
        values: a tensor, a numpy array, or numbers in lists.
        shape: that it must have.
        who: the plug-in, for messages, such as "reward my_rewards:brightness".
        mask: bool of that shape, where the values count; elsewhere they become 0.

    Raises:
        TrainingError: it is something else, has another shape, or a value that is not finite.
    """
    if not isinstance(values, Tensor):
        try:
            values = torch.as_tensor(values, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            kind = type(values).__name__
            raise TrainingError(
                f"{who}: returned {kind}; a tensor, an array or a list of numbers is needed"
            ) from None
    if values.shape != shape:
        raise TrainingError(f"{who}: returned shape {tuple(values.shape)}; {shape} is needed")
    values = values.detach().float()
    if mask is not None:
        values = torch.where(mask.to(values.device), values, 0.0)
    if not bool(torch.isfinite(values).all()):
        raise TrainingError(f"{who}: returned a value that is not finite")
    return values


def require_model(model: Any, who: str) -> Any:
    """A generator that a plug-in returned.

    Args:
        model: what must be an nn.Module that offers all of `ImageTokenModel`.
        who: the plug-in, for messages.

    Raises:
        ModelError: it is something else, or lacks something: names the first.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise ModelError(
            f"{who}: returned {kind}; a torch.nn.Module is needed, see ImageTokenModel"
        )
    asked = (*ImageTokenModel.__annotations__, *vars(ImageTokenModel))
    lacking = [name for name in asked if name[0] != "_" and not hasattr(model, name)]
    if type(model).forward is nn.Module.forward:
        lacking.append("forward")
    if lacking:
        kind = type(model).__name__
        raise ModelError(f"{who}: returned {kind} without {lacking[0]}, see ImageTokenModel")
    return model


class RewardFn(Protocol):
    """`(images (B, 3, h, w) in [0, 1], prompts of length B) -> (B,)` float32, higher is better, no gradient."""

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor: ...


@runtime_checkable
class DifferentiableReward(Protocol):
    """What a reward offers beside its call if it can be differentiated in the pixels, for `map: gradient`."""

    def differentiable(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, h, w) and B prompts to (B,), each of its own image alone, with a gradient."""
        ...


@runtime_checkable
class LocatingReward(Protocol):
    """What a reward offers beside its call if it knows objects that it found right or wrong, for `map: objects`."""

    def locate(self, images: Tensor, prompts: Sequence[Prompt], grid: tuple[int, int]) -> Tensor:
        """(B, 3, h, w), B prompts and the grid (H, W) to (B, T), above 0 where a right object is, below 0 where a
        wrong one is."""
        ...


@runtime_checkable
class DifferentiableDecoder(Protocol):
    """What a generator offers beside `ImageTokenModel` if its image tokenizer can be differentiated, for `map: gradient`."""

    def vectors(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to what the decoder takes, (B, T, C)."""
        ...

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """(B, T, C) to images (B, 3, h, w) in [0, 1], each of its own vectors alone, with a gradient."""
        ...
