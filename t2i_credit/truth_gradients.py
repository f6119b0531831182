"""Does the credit make the policy gradient cleaner, without turning it? Gradients of independent batches, compared.

The policy is never updated. Shapes: B samples, T image tokens, N batches, D gradient coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import Config
from .credit import power_rank, token_advantages
from .interfaces import Rollout
from .losses import policy_loss
from .truth_assigners import Assigner
from .truth_statistics import (
    Numbers,
    direction_cosine,
    jackknife,
    large_batch_cosine,
    pair_cosine,
    signal_to_noise,
)

MAX_COORDINATES = 2**21  # of a larger model a fixed random subset of the coordinates is compared
LARGER = 21  # batches from which on the others together are at least 20 times one

Credits = Mapping[str, Tensor]  # name -> (B, T)


class GradientStore:
    """Gradients of many batches under several credits, each kept as unit vector in float16 and its length."""

    def __init__(self) -> None:
        self._units: dict[str, list[Tensor]] = {}
        self._lengths: dict[str, list[float]] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Keeps a gradient (D,); one of length 0 stays 0."""
        length = float(gradient.norm())
        # entries of a unit vector are near 1 / sqrt(D): scaled, float16 keeps their 11 bits
        unit = gradient * (math.sqrt(len(gradient)) / length) if length > 0 else gradient
        self._units.setdefault(name, []).append(unit.half().cpu())
        self._lengths.setdefault(name, []).append(length)

    def products(self, first: str, second: str) -> Numbers:
        """(N, N) dot products of the gradients under the first credit with those under the second."""
        a, b = torch.stack(self._units[first]), torch.stack(self._units[second])
        total = torch.zeros(len(a), len(b), dtype=torch.float64)
        for start in range(0, a.shape[1], 2**17):
            part = slice(start, start + 2**17)
            total += (a[:, part].float() @ b[:, part].float().T).double()
        lengths = np.outer(self._lengths[first], self._lengths[second])
        return total.numpy() / a.shape[1] * lengths

    @property
    def names(self) -> list[str]:
        return list(self._units)


def credits_of(
    rollout: Rollout, advantages: Tensor, assigners: Sequence[Assigner], model: Any, seed: int
) -> dict[str, Tensor]:
    """The credits whose gradients are compared: uniform, random (weights of power_rank, shuffled), the assigners'."""
    noise = torch.rand(rollout.tokens.shape, generator=torch.Generator().manual_seed(seed))
    found = {
        "uniform": rollout.mask.float(),
        "random": power_rank(noise.to(rollout.tokens.device), rollout.mask),
    }
    return found | {assigner.name: assigner(rollout, advantages, model) for assigner in assigners}


def policy_gradients(
    model: Any, rollout: Rollout, advantages: Tensor, credits: Credits, config: Config
) -> dict[str, Tensor]:
    """{name: (D,)}: the gradient of the configured policy loss at ratio 1, without KL term, under each credit.

    One forward pass serves all of them.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    settings, size = config.loss, rollout.group_size
    prompts = rollout.prompts[::size]
    name = "guided_logprobs" if settings.policy == "guided" else "logprobs"
    logprobs = model(
        model.condition([p.text for p in prompts], [p.negative for p in prompts]),
        rollout.tokens,
        want=[name],
        cfg_scale=config.rollout.cfg_scale,
        temperature=config.rollout.temperature,
    )[name]
    found = {}
    for i, (label, credit) in enumerate(credits.items()):
        loss, _ = policy_loss(
            logprobs,
            logprobs.detach(),
            token_advantages(advantages, credit),
            rollout.mask,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            # one ratio per image would cancel the credit
            ratio="sequence_token" if settings.ratio == "sequence" else settings.ratio,
            aggregate=settings.aggregate,
        )
        gradients = torch.autograd.grad(
            loss, parameters, retain_graph=i + 1 < len(credits), allow_unused=True
        )
        found[label] = _flat(gradients, parameters)
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
    model: Any,
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
        direction (1 = no bias) and, but for uniform, snr_ahead (difference to uniform's, same batches), each
        [estimate, low, high] with jackknife intervals over batches.
    """
    store, samples, count, coordinates = GradientStore(), 0, 0, 0
    for number, (rollout, advantages) in enumerate(batches):
        credits = credits_of(rollout, advantages, assigners, model, seed + number)
        for name, gradient in policy_gradients(model, rollout, advantages, credits, config).items():
            store.add(name, gradient)
            coordinates = len(gradient)
        samples, count = len(rollout), number + 1
        done()
    uniform = store.products("uniform", "uniform")
    found = {name: _row(store, name, uniform) for name in store.names}
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
        row["snr_ahead"] = jackknife(
            lambda a, b: signal_to_noise(a) - signal_to_noise(b), own, uniform
        )
    return row
