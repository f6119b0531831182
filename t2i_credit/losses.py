"""The clipped policy loss with per-token advantages and a KL penalty. Knows no model, no credit.

Shapes: B samples, T image tokens; mask (B, T), True = counts in the loss. All arithmetic is
float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import UserError

Ratio = Literal["token", "sequence", "sequence_token"]
Aggregate = Literal["token", "sequence", "constant"]
KLForm = Literal["reverse", "forward", "jensen_shannon"]
MAX_LOG_RATIO = 20.0  # nats, beyond which the penalty grows no more, as in the code of 2606.21498


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    token_advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    ratio: Ratio = "token",
    aggregate: Aggregate = "token",
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_weights: Tensor | None = None,
    kl_form: KLForm = "reverse",
    max_tokens: int | None = None,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped surrogate with per-token advantages, plus a KL penalty, aggregated to a scalar.

    Per token: -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + kl_coef kl_weights kl.
    Sources: PPO's clip per token with group advantages (GRPO, 2402.03300), unequal clips (DAPO,
    2503.14476), constant length (Dr. GRPO, 2503.20783), sequence ratios (GSPO, 2507.18071).

    Args:
        logprobs: (B, T), the only input that receives a gradient.
        old_logprobs: (B, T) before the update; `logprobs.detach()` for one update per rollout.
        token_advantages: (B, T).
        mask: (B, T) bool. What stands off the mask is never read, not even NaN.
        clip_low, clip_high: 0.2 and 0.2 in GRPO, 0.2 and 0.28 in DAPO.
        ratio: "token": exp(logprobs - old). "sequence": exp(masked mean of that difference), one
            per row; credit of row mean 1 then cancels out of the gradient. "sequence_token": the
            same value, but each token's own gradient: sg(s) exp(logprobs - sg(logprobs)).
        aggregate: "token": sum / number of True positions (DAPO, BNPO). "sequence": mean over rows
            of the row's masked mean (GRPO). "constant": sum / (B * max_tokens) (Dr. GRPO).
        ref_logprobs: (B, T) of the frozen reference, in the same form (conditional or guided) as
            `logprobs`.
        kl_coef: weight of the KL term; 0 = the KL is measured only.
        kl_weights: (B, T) factors on the KL term, see `credit.kl_weight`.
        kl_form: see `kl_penalty`; "reverse" is k3.
        max_tokens: of "constant"; T if not given.
        denominator: replaces the divisor of the aggregation (True positions, rows, or rows *
            max_tokens) by the one of the whole batch, so that micro-batches and processes add up to
            its loss and gradient.

    Returns:
        The scalar loss, and detached scalars over the True positions: clip_frac (share of tokens
        whose gradient the clip removed), approx_kl (k3 of the old against the new policy),
        ratio_mean, ratio_max, and kl (k3 to the reference, without kl_weights) if it is given.

    Raises:
        UserError: an unknown ratio, aggregate or kl_form, or kl_coef without ref_logprobs.
    """
    _check_shapes(logprobs, old_logprobs, token_advantages, mask, ref_logprobs, kl_weights)
    current = torch.where(mask, logprobs.float(), 0.0)
    log_ratio = current - torch.where(mask, old_logprobs.detach().float(), 0.0)
    advantages = torch.where(mask, token_advantages.detach().float(), 0.0)
    ratios = _ratios(current, log_ratio, mask, ratio)
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high)
    per_token = -torch.min(ratios * advantages, clipped * advantages)

    metrics = _ratio_metrics(ratios, log_ratio, advantages, mask, clip_low, clip_high)
    if ref_logprobs is not None:
        difference = torch.where(mask, ref_logprobs.detach().float(), 0.0) - current
        metrics["kl"] = _masked_mean(_k3(difference.detach()), mask)
        if kl_coef:
            kl = kl_penalty(difference, kl_form)
            if kl_weights is not None:
                kl = kl * torch.where(mask, kl_weights.detach().float(), 0.0)
            per_token = per_token + kl_coef * kl
    elif kl_coef:
        raise UserError(f"kl_coef is {kl_coef}: a KL penalty needs ref_logprobs")
    return _aggregated(per_token, mask, aggregate, max_tokens, denominator), metrics


def _ratios(current: Tensor, log_ratio: Tensor, mask: Tensor, kind: Ratio) -> Tensor:
    """(B, T) importance ratios; off the mask they mean nothing."""
    if kind == "token":
        return log_ratio.exp()
    if kind not in ("sequence", "sequence_token"):
        raise UserError(f"ratio is {kind!r}; allowed are token, sequence, sequence_token")
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    sequence = (log_ratio.sum(dim=1, keepdim=True) / lengths).exp()
    if kind == "sequence":
        return sequence.expand_as(log_ratio)
    return sequence.detach() * (current - current.detach()).exp()


def _k3(difference: Tensor) -> Tensor:
    """e^d - d - 1 >= 0, Schulman's low-variance KL estimator."""
    # expm1: e^d - 1 would drown small differences in the rounding of 1
    return difference.expm1() - difference


def kl_penalty(difference: Tensor, form: KLForm = "reverse") -> Tensor:
    """The divergence of policy and reference by the token that the policy took, at least 0, 0 where both agree.

    With d = ref_logprob - logprob and w = e^d, of which the policy's expectation is 1:
    reverse, KL(policy || reference): w - d - 1 (k3, 2402.03300), slope in d: w - 1;
    forward, KL(reference || policy): w d - w + 1, slope w d;
    jensen_shannon: [ln 2 - ln(1 + w) + w (ln 2 - ln(1 + 1/w))] / 2, slope w ln(2w / (1 + w)) / 2.
    Source of the last two: 2606.21498 and its code, which clamps d as here; the gradient runs through w.

    Args:
        difference: d, (B, T) nats.
        form: which divergence.

    Raises:
        UserError: an unknown form.
    """
    if form == "reverse":
        return _k3(difference)
    d = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if form == "forward":
        return d.exp() * d - d.expm1()
    if form == "jensen_shannon":
        to_policy = math.log(2) - F.softplus(d)
        to_reference = d.exp() * (math.log(2) - F.softplus(-d))
        return (to_policy + to_reference) / 2
    raise UserError(f"kl_form is {form!r}; allowed are reverse, forward, jensen_shannon")


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True positions of the batch, 0 without any."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _aggregated(
    per_token: Tensor,
    mask: Tensor,
    kind: Aggregate,
    max_tokens: int | None,
    denominator: float | Tensor | None,
) -> Tensor:
    """(B, T), 0 off the mask, to the scalar loss; see `policy_loss`."""
    divisor: float | Tensor
    if kind == "token":
        total, divisor = per_token.sum(), mask.sum().clamp(min=1)
    elif kind == "sequence":
        row_means = per_token.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        total, divisor = row_means.sum(), len(mask)
    elif kind == "constant":
        rows, tokens = mask.shape
        total, divisor = per_token.sum(), rows * (tokens if max_tokens is None else max_tokens)
    else:
        raise UserError(f"aggregate is {kind!r}; allowed are token, sequence, constant")
    return total / (divisor if denominator is None else denominator)


@torch.no_grad()
def _ratio_metrics(
    ratios: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
) -> dict[str, Tensor]:
    """Detached scalars over the True positions; ratio_max is 0 without any."""
    too_low = (ratios < 1 - clip_low) & (advantages < 0)
    too_high = (ratios > 1 + clip_high) & (advantages > 0)
    return {
        "clip_frac": _masked_mean((too_low | too_high).float(), mask),
        "approx_kl": _masked_mean(_k3(log_ratio), mask),
        "ratio_mean": _masked_mean(ratios, mask),
        "ratio_max": torch.where(mask, ratios, 0.0).max(),
    }


def _check_shapes(logprobs: Tensor, *others: Tensor | None) -> None:
    # A (B,) advantage would broadcast along T whenever B == T.
    shapes = [tuple(other.shape) for other in others if other is not None]
    assert logprobs.dim() == 2 and all(shape == logprobs.shape for shape in shapes), (
        f"all inputs must be (B, T) = {tuple(logprobs.shape)}, got {shapes}"
    )
    mask = others[2]
    assert mask is not None and mask.dtype == torch.bool, "mask must be bool, True = counts"
