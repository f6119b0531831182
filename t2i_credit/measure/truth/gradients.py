"""Does the credit make the policy gradient cleaner, without turning it? Gradients of independent batches, compared.

The policy is never updated. Shapes: B samples, T image tokens, N batches, D gradient coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from ...config.schema import Config
from ...credit.entry import token_advantages
from ...credit.weights import power_rank
from ...interfaces import Rollout
from ...losses import policy_loss
from ...training.policy import Policy, samples_in_a_pass
from ...training.processes import micro_batches
from ...training.update import denominators
from ..intervals import UPPER, Interval, Numbers
from .assigners import Assigner

MAX_COORDINATES = 2**21  # of a larger model a fixed random subset of the coordinates is compared
LARGER = 21  # batches from which on the others together are at least 20 times one

TokenAdvantages = Mapping[str, Tensor]  # name -> (B, T)


class GradientStore:
    """Gradients of many batches under several credits, each kept as unit vector in float16 and its length."""

    def __init__(self) -> None:
        self.units: dict[str, list[Tensor]] = {}
        self.lengths: dict[str, list[float]] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Keeps a gradient (D,); one of length 0 stays 0."""
        length = float(gradient.norm())
        # entries of a unit vector are near 1 / sqrt(D): scaled, float16 keeps their 11 bits
        unit = gradient * (math.sqrt(len(gradient)) / length) if length > 0 else gradient
        self.units.setdefault(name, []).append(unit.half().cpu())
        self.lengths.setdefault(name, []).append(length)

    def products(self, first: str, second: str) -> Numbers:
        """(N, N) dot products of the gradients under the first credit with those under the second."""
        a, b = torch.stack(self.units[first]), torch.stack(self.units[second])
        total = torch.zeros(len(a), len(b), dtype=torch.float64)
        for start in range(0, a.shape[1], 2**17):
            part = slice(start, start + 2**17)
            total += (a[:, part].float() @ b[:, part].float().T).double()
        lengths = np.outer(self.lengths[first], self.lengths[second])
        return total.numpy() / a.shape[1] * lengths


def token_advantages_of(
    rollout: Rollout, advantages: Tensor, assigners: Sequence[Assigner], policy: Policy, seed: int
) -> dict[str, Tensor]:
    """What gradients are compared of: uniform credit, random (weights of power_rank, shuffled), the assigners'."""
    noise = torch.rand(rollout.tokens.shape, generator=torch.Generator().manual_seed(seed))
    random = power_rank(noise.to(rollout.tokens.device), rollout.mask)
    found = {
        "uniform": token_advantages(advantages, rollout.mask),
        "random": token_advantages(advantages, random),
    }
    return found | {a.name: a.assigned(rollout, advantages, policy)[1] for a in assigners}


def policy_gradients(
    policy: Policy, rollout: Rollout, pushed: TokenAdvantages, config: Config
) -> dict[str, Tensor]:
    """{name: (D,)}: the gradient of the configured policy loss at ratio 1, without KL term, for all token advantages.

    Micro-batch by micro-batch as in training; one forward pass of each serves all of them.
    """
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    most = samples_in_a_pass(config, policy.model.grid, len(rollout))
    denominator = denominators(rollout)[config.loss.aggregate]
    found: dict[str, Tensor] = {}
    for rows in micro_batches(range(len(rollout)), most, rollout.group_size):
        part = slice(rows.start, rows.stop)
        places = torch.arange(rows.start, rows.stop, device=rollout.tokens.device)
        logprobs = policy.ask(rollout, places, {"policy": policy.logprobs})["policy"]
        for i, (name, advantages) in enumerate(pushed.items()):
            loss, _ = policy_loss(
                logprobs,
                logprobs.detach(),
                advantages[part],
                rollout.mask[part],
                clip_low=config.loss.clip_low,
                clip_high=config.loss.clip_high,
                # one ratio per image would cancel the credit
                ratio="sequence_token" if config.loss.ratio == "sequence" else config.loss.ratio,
                aggregate=config.loss.aggregate,
                denominator=denominator,
            )
            gradients = torch.autograd.grad(
                loss, parameters, retain_graph=i + 1 < len(pushed), allow_unused=True
            )
            whole = _flat(gradients, parameters)
            found[name] = found[name] + whole if name in found else whole
    return found


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """All coordinates as one vector (D,), or the fixed random subset of a large model."""
    parts = [
        torch.zeros_like(p).flatten() if g is None else g.float().flatten()
        for g, p in zip(gradients, parameters, strict=True)
    ]
    whole = torch.cat(parts)
    if len(whole) <= MAX_COORDINATES:
        return whole
    draw = torch.Generator().manual_seed(0)
    return whole[torch.randint(len(whole), (MAX_COORDINATES,), generator=draw).to(whole.device)]


def gradient_agreement(
    policy: Policy,
    batches: Iterable[tuple[Rollout, Tensor]],
    assigners: Sequence[Assigner],
    config: Config,
    *,
    seed: int,
    done: Callable[[], None],
) -> dict[str, Any]:
    """Signal-to-noise ratio, cosine and bias of the gradient under every credit.

    Args:
        batches: N independent rollouts of one policy with their advantages (B,).
        done: called after each batch.

    Returns:
        batches, samples (per batch), coordinates; per name: snr (of one batch), cosine (of two independent batches),
        large (cosine with the uniform-credit gradient of all other batches together; None under 21 batches),
        direction (1 = no bias) and, but for uniform, times_uniform and snr_ahead (ratio and difference to uniform's, same
        batches), each [estimate, low, high] with jackknife intervals over batches.
    """
    store, samples, count, coordinates = GradientStore(), 0, 0, 0
    for number, (rollout, advantages) in enumerate(batches):
        pushed = token_advantages_of(rollout, advantages, assigners, policy, seed + number)
        gradients = policy_gradients(policy, rollout, pushed, config)
        for name, gradient in gradients.items():
            store.add(name, gradient)
            coordinates = len(gradient)
        samples, count = len(rollout), number + 1
        done()
    uniform = store.products("uniform", "uniform")
    found = {name: _row(store, name, uniform) for name in store.units}
    return {"batches": count, "samples": samples, "coordinates": coordinates, "assigners": found}


def _row(store: GradientStore, name: str, uniform: Numbers) -> dict[str, Any]:
    own, crossed = store.products(name, name), store.products(name, "uniform")
    row = {
        "snr": jackknife(signal_to_noise, own),
        "cosine": jackknife(pair_cosine, own),
        "direction": jackknife(direction_cosine, own, crossed, uniform),
        "large": jackknife(large_batch_cosine, own, crossed, uniform)
        if len(own) >= LARGER
        else None,
    }
    if name != "uniform":
        row["times_uniform"] = times_cleaner(own, uniform)
        row["snr_ahead"] = jackknife(
            lambda a, b: signal_to_noise(a) - signal_to_noise(b), own, uniform
        )
    return row


# ---- agreement of gradients ----


def signal_to_noise(products: Numbers) -> float:
    """|mean gradient|^2 / variance of one batch's gradient, both without bias, from dot products (N, N).

    The mean over pairs of different batches estimates |mean|^2; the mean square of one batch is that plus its noise.
    nan where no batch teaches anything (no group whose rewards differ).
    """
    signal = _off_diagonal_mean(products)
    noise = float(np.trace(products)) / len(products) - signal
    if not products.any():
        return math.nan
    return signal / noise if noise > 0 else math.inf


def times_cleaner(products: Numbers, others: Numbers) -> Interval:
    """The signal-to-noise ratio of the first over that of the others, same batches: (N, N) each.

    The interval is the jackknife's of the logarithm, so that it is never below 0; its ends are nan where one of the
    ratios is not above 0 without some batch.
    """
    found = jackknife(_log_ratio, products, others)
    return [math.exp(value) for value in found]


def _log_ratio(products: Numbers, others: Numbers) -> float:
    ratios = signal_to_noise(products), signal_to_noise(others)
    if not all(0 < ratio < math.inf for ratio in ratios):
        return math.nan
    return math.log(ratios[0] / ratios[1])


def pair_cosine(products: Numbers) -> float:
    """Mean cosine between the gradients of two independent batches, from their dot products (N, N).

    A batch that teaches nothing (gradient 0) counts as cosine 0.
    """
    norms = np.sqrt(np.diag(products))
    lengths = np.outer(norms, norms)
    return _off_diagonal_mean(
        np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    )


def large_batch_cosine(products: Numbers, crossed: Numbers, large: Numbers) -> float:
    """Mean cosine of one batch's gradient with the summed uniform-credit gradient of all other batches.

    Args:
        products: (N, N) of the assigner's gradients.
        crossed: (N, N) of the assigner's gradient i with the uniform one j.
        large: (N, N) of the uniform gradients.
    """
    found = []
    for i in range(len(products)):
        rest = np.arange(len(products)) != i
        length = math.sqrt(products[i, i] * large[np.ix_(rest, rest)].sum())
        found.append(crossed[i, rest].sum() / length if length > 0 else 0.0)
    return float(np.mean(found))


def direction_cosine(products: Numbers, crossed: Numbers, large: Numbers) -> float:
    """Cosine of the expected gradient with the expected uniform-credit one: 1 = no bias. Arguments as above.

    Noise lowers every cosine of measured gradients; here the lengths are estimated from pairs of independent
    batches, which leaves the noise out (so it may exceed 1). nan where a length is not resolved.
    """
    own, theirs = _off_diagonal_mean(products), _off_diagonal_mean(large)
    if min(own, theirs) <= 0:
        return math.nan
    return _off_diagonal_mean(crossed) / math.sqrt(own * theirs)


def jackknife(statistic: Callable[..., float], *matrices: Numbers) -> Interval:
    """[estimate, low, high] of a statistic of (N, N) matrices over batches, with a 95% t-interval (delete-one).

    The ends are nan where the statistic is not finite without some batch.
    """
    batches = len(matrices[0])
    estimate = statistic(*matrices)
    without = []
    for i in range(batches):
        rest = np.arange(batches) != i
        without.append(statistic(*(m[np.ix_(rest, rest)] for m in matrices)))
    if not np.isfinite(without).all():
        return [estimate, math.nan, math.nan]
    spread = np.asarray(without) - np.mean(without)
    error = math.sqrt((batches - 1) / batches * float((spread**2).sum()))
    half = float(stdtrit(batches - 1, UPPER)) * error
    return [estimate, estimate - half, estimate + half]


def _off_diagonal_mean(matrix: Numbers) -> float:
    count = len(matrix)
    return float(matrix.sum() - np.trace(matrix)) / (count * (count - 1))
