"""Statistics of next-token distributions: of logits, and chunk by chunk of features and head.

Does no sampling and no truncation. Shapes: B samples, T image tokens, V codebook entries, D
features. Leading dimensions are free, (...) below is (B, T) as a rule. All arithmetic is float32
whatever dtype the model runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..interfaces import Reference

Head = Callable[[Tensor], Tensor]


def taken_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of the taken tokens: gather - logsumexp, no normalised copy of the logits.

    Args:
        logits: (..., V).
        tokens: (...) int64 in [0, V).

    Returns:
        (...) float32, nats.
    """
    return _TakenLogprobs.apply(logits.float(), tokens)


class _TakenLogprobs(torch.autograd.Function):
    """Its gradient, onehot - softmax, is made in one array and three passes; autograd's own takes twice both."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        normaliser = logits.logsumexp(-1, keepdim=True)
        places = tokens.unsqueeze(-1)
        ctx.save_for_backward(logits, places, normaliser)
        return (logits.gather(-1, places) - normaliser).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, places, normaliser = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        return (logits - normaliser).exp_().mul_(-grad).scatter_add_(-1, places, grad), None


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats: (..., V) to (...) float32. A code of probability 0 (logit -inf) counts 0."""
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    return -(p * torch.where(p > 0, log_p, 0.0)).sum(-1)


def full_kl(logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Exact KL(positive || negative) over all codes, nats: two (..., V) to (...) float32."""
    log_p = logits.float().log_softmax(-1)
    log_q = negative_logits.float().log_softmax(-1)
    p = log_p.exp()
    return (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1)


def hellinger(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Squared Hellinger distance 1 - sum_a sqrt(p q), in [0, 1]: two (..., V) to (...) float32.

    Taken as half the sum of (sqrt p - sqrt q)^2: it is the same number, but it does not cancel when
    the two are close, and it is exactly 0 when they are equal.
    """
    root_p = (logits.float().log_softmax(-1) / 2).exp()
    root_q = (ref_logits.float().log_softmax(-1) / 2).exp()
    return ((root_p - root_q).square().sum(-1) / 2).clamp(max=1.0)


def code_spread(logits: Tensor, codebook: Tensor) -> Tensor:
    """How different the pictures of the likely codes look: (..., V) and (V, C) to (...) float32 in [0, 1].

    With unit code vectors e: 1 - |E e|^2, half the mean squared distance of two codes drawn from the distribution. An
    entropy counts codes that look alike as different; this does not.
    """
    mean = _mean_look(logits.float().softmax(-1), codebook)
    return (1.0 - mean.square().sum(-1)).clamp(0.0, 1.0)


def code_shift(logits: Tensor, negative_logits: Tensor, codebook: Tensor) -> Tensor:
    """How far the negative prompt moves the look of the next token: two (..., V) and (V, C) to (...) float32 in [0, 4].

    |E e - E- e|^2 with unit code vectors e, under the positive and under the negative prompt.
    """
    difference = logits.float().softmax(-1) - negative_logits.float().softmax(-1)
    return _mean_look(difference, codebook).square().sum(-1)


def _mean_look(weights: Tensor, codebook: Tensor) -> Tensor:
    """Unit code vectors (V, C) under weights (..., V), (..., C) float32, also where products are made in less."""
    unit = functional.normalize(codebook.float(), dim=-1)
    with torch.autocast(weights.device.type, enabled=False):
        return weights @ unit


def guided_logits(
    logits: Tensor, negative_logits: Tensor | None, *, cfg_scale: float, temperature: float = 1.0
) -> Tensor:
    """(u + s (c - u)) / temperature, (..., V) float32.

    At s = 1 it is exactly c / temperature, and `negative_logits` may be None.

    Args:
        logits: (..., V), c, under the positive prompt.
        negative_logits: (..., V), u, under the negative prompt.
        cfg_scale: s, 1 = no guidance.
        temperature: above 0.
    """
    guided = logits.float()
    if cfg_scale != 1.0:
        if negative_logits is None:
            raise ValueError(f"cfg_scale {cfg_scale} needs the logits under the negative prompt")
        negative = negative_logits.float()
        guided = negative + cfg_scale * (guided - negative)
    return guided if temperature == 1.0 else guided / temperature


def chunked_logprobs(features: Tensor, head: Head, tokens: Tensor, *, chunk: int = 1024) -> Tensor:
    """Log-probabilities of the taken tokens without ever keeping the logits of all of them.

    Args:
        features: (N, D) or (B, T, D) last hidden states.
        head: maps features (..., D) to logits (..., V).
        tokens: (N,) or (B, T).
        chunk: token positions per call of the head; about 3 * chunk * V * 4 bytes live at a time.

    Returns:
        tokens' shape, float32, differentiable with respect to the features and the head.
    """
    found = token_statistics(("logprobs",), tokens, features, None, head, chunk_rows=chunk)
    return found["logprobs"]


def token_statistics(
    want: Sequence[str],
    tokens: Tensor,
    positive_features: Tensor,
    negative_features: Tensor | None,
    head: Head,
    *,
    cfg_scale: float = 1.0,
    temperature: float = 1.0,
    reference: Reference | None = None,
    codebook: Tensor | None = None,
    chunk_rows: int = 1024,
) -> dict[str, Tensor]:
    """Per-token statistics of the positive, negative and guided distributions, chunk by chunk.

    With gradients enabled each chunk is recomputed in the backward pass, so neither logits nor
    distributions of all positions ever exist together. Each head runs only if something wanted
    depends on it.

    Args:
        want: names out of STATISTICS. logprobs, entropy, full_kl and hellinger are of the
            conditional branches at temperature 1; guided_ names are of softmax((u + s (c - u)) /
            temperature), not truncated.
        tokens: (B, T) taken codes.
        positive_features: (B, T, D) last hidden states under the positive prompt.
        negative_features: (B, T, D) under the negative prompt, or None where nothing wanted needs
            them.
        head: maps features (..., D) to logits (..., V).
        cfg_scale, temperature: s and the temperature of the guided distribution.
        reference: the frozen side of hellinger and guided_hellinger; never receives a gradient.
        codebook: (V, C), for code_spread and code_shift.
        chunk_rows: token positions per chunk.

    Returns:
        {name: (B, T) float32}, differentiable.

    Raises:
        ValueError: an unknown name, or a missing input that a wanted name needs.
    """
    names = tuple(dict.fromkeys(want))
    _check_inputs(names, cfg_scale, negative_features, reference, codebook)
    if not names:
        return {}
    assert positive_features.shape[:-1] == tokens.shape, (positive_features.shape, tokens.shape)

    def of_chunk(
        taken: Tensor,
        positive: Tensor | None,
        negative: Tensor | None,
        ref_positive: Tensor | None,
        ref_negative: Tensor | None,
    ) -> tuple[Tensor, ...]:
        policy = _Branches(head, positive, negative, cfg_scale, temperature, codebook)
        frozen_head = _without_grad(reference)
        frozen = _Branches(frozen_head, ref_positive, ref_negative, cfg_scale, temperature)
        return tuple(_STATISTIC[name](taken, policy, frozen) for name in names)

    rows = [
        None if features is None else features.flatten(0, -2)
        for features in (
            positive_features,
            negative_features,
            reference.features if reference else None,
            reference.negative_features if reference else None,
        )
    ]
    taken_tokens = tokens.flatten()
    found = []
    for start in range(0, tokens.numel(), chunk_rows):
        part = slice(start, start + chunk_rows)
        inputs: list[Any] = [taken_tokens[part]]
        inputs += [None if row is None else row[part] for row in rows]
        if torch.is_grad_enabled() and tokens.numel() > chunk_rows:
            found.append(checkpoint(of_chunk, *inputs, use_reentrant=False))
        else:
            found.append(of_chunk(*inputs))
    return {
        name: torch.cat(column).reshape(tokens.shape)
        for name, column in zip(names, zip(*found, strict=True), strict=True)
    }


@dataclass
class _Branches:
    """The logits (N, V) of one chunk; each branch runs once, and only if it is asked for.

    What nothing wanted needs is None, see `_check_inputs`.
    """

    head: Head
    features: Any
    negative_features: Any
    cfg_scale: float
    temperature: float
    codebook: Any = None

    @cached_property
    def positive(self) -> Tensor:
        return self.head(self.features).float()

    @cached_property
    def negative(self) -> Tensor:
        return self.head(self.negative_features).float()

    @cached_property
    def guided(self) -> Tensor:
        return guided_logits(
            self.positive,
            self.negative if self.cfg_scale != 1.0 else None,
            cfg_scale=self.cfg_scale,
            temperature=self.temperature,
        )


# (taken tokens (N,), the policy's branches, the reference's branches) -> (N,)
_STATISTIC: dict[str, Callable[[Tensor, _Branches, _Branches], Tensor]] = {
    "logprobs": lambda taken, policy, frozen: taken_logprobs(policy.positive, taken),
    "negative_logprobs": lambda taken, policy, frozen: taken_logprobs(policy.negative, taken),
    "guided_logprobs": lambda taken, policy, frozen: taken_logprobs(policy.guided, taken),
    "entropy": lambda taken, policy, frozen: entropy(policy.positive),
    "guided_entropy": lambda taken, policy, frozen: entropy(policy.guided),
    "full_kl": lambda taken, policy, frozen: full_kl(policy.positive, policy.negative),
    "code_spread": lambda taken, policy, frozen: code_spread(policy.positive, policy.codebook),
    "code_shift": lambda taken, policy, frozen: code_shift(
        policy.positive, policy.negative, policy.codebook
    ),
    "hellinger": lambda taken, policy, frozen: hellinger(policy.positive, frozen.positive),
    "guided_hellinger": lambda taken, policy, frozen: hellinger(policy.guided, frozen.guided),
}
STATISTICS = tuple(_STATISTIC)


def needs_negative(statistic: str, cfg_scale: float) -> bool:
    """Whether a statistic is made of the negative branch, too."""
    guided = statistic.startswith("guided_") and cfg_scale != 1.0
    return guided or statistic in ("negative_logprobs", "full_kl", "code_shift")


def _without_grad(reference: Reference | None) -> Head:
    @torch.no_grad()
    def frozen_head(features: Tensor) -> Tensor:
        assert reference is not None
        return reference.head(features)

    return frozen_head


def _check_inputs(
    names: tuple[str, ...],
    cfg_scale: float,
    negative_features: Tensor | None,
    reference: Reference | None,
    codebook: Tensor | None,
) -> None:
    """Refuses unknown names and missing inputs before anything is computed."""
    unknown = [name for name in names if name not in _STATISTIC]
    if unknown:
        raise ValueError(f"unknown statistics {unknown}; known are {list(STATISTICS)}")
    for name in names:
        both = needs_negative(name, cfg_scale)
        if name.startswith("code_") and codebook is None:
            raise ValueError(f"{name} needs the codebook")
        if both and negative_features is None:
            raise ValueError(f"{name} at cfg_scale {cfg_scale} needs negative_features")
        if name.endswith("hellinger"):
            if reference is None:
                raise ValueError(f"{name} needs a reference")
            if both and reference.negative_features is None:
                raise ValueError(f"{name} needs the reference's negative features")
