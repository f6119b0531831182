"""How near does credit come to the truth? Values of unfinished pictures by sampling them on, and what each row of tokens did to them.

Shapes: P prompts, G samples of each, B = P*G samples, T = H*W image tokens, K continuations. Row r holds W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...rollout.sampling import TRUTH, derive_seed, sampling_noise
from ..intervals import Numbers, bootstrap
from .causality import Sampled, continued

FEWEST = 8  # continuations


def row_values(
    sampled: Sampled, continuations: int, *, seed: int, done: Callable[[], None]
) -> tuple[Numbers, Numbers]:
    """The expected reward of the policy's own pictures after each row, by Monte Carlo (VinePPO, 2410.01679).

    Args:
        continuations: K, of every unfinished picture.
        seed: of their noise.
        done: called after each row end.

    Returns:
        values and their squared standard errors, (B, H + 1) each: before the first row, of all samples of the prompt
        together, and after each row; after the last one it is the reward itself.
    """
    rollout, (height, width) = sampled.rollout, sampled.model.grid
    size, (samples, tokens) = rollout.group_size, rollout.tokens.shape
    values = np.zeros((samples, height + 1))
    errors = np.zeros((samples, height + 1))
    for row in range(height):
        noise = sampling_noise(
            derive_seed(TRUTH, seed, 3, row), 0, samples * continuations, tokens
        ).to(rollout.tokens.device)
        forced = torch.arange(tokens, device=noise.device) < row * width
        rewards = []
        for condition, rows in sampled.parts():
            many = slice(rows.start * continuations, rows.stop * continuations)
            given = rollout.tokens[rows].repeat_interleave(continuations, 0)
            drawn = continued(
                sampled.model,
                condition,
                given,
                forced.expand_as(given),
                noise[many],
                **sampled.sampling,
            )
            rewards.append(sampled.score_copies(drawn, rows, continuations).cpu().numpy())
        found = np.concatenate(rewards).reshape(samples, continuations).astype(np.float64)
        if row == 0:  # all of a prompt begin alike
            found = found.reshape(-1, size * continuations).repeat(size, axis=0)
        values[:, row] = found.mean(1)
        errors[:, row] = found.var(1, ddof=1) / found.shape[1]
        done()
    values[:, height] = sampled.rewards.cpu().numpy()
    return values, errors


def oracle(
    values: Numbers, errors: Numbers, pushed: Mapping[str, Tensor], group_size: int
) -> dict[str, Any]:
    """How credit agrees with what the rows did.

    The true advantage of a row is the value after it less the value before it. What is known of it has noise, so that
    even exact credit agrees with it only as far as `ceiling` says: sqrt(1 - mean squared standard error / variance).

    Args:
        values, errors: (B, H + 1), see `row_values`.
        pushed: {name: (B, T) token advantages}.
        group_size: G.

    Returns:
        rows, samples, error (mean standard error of a value), decided (share of the variance of true advantages by
        row), ceiling, and per name correlation and of_ceiling (its share of the ceiling), each [estimate, low, high]
        with bootstrap intervals over prompts.
    """
    advantages = np.diff(values, axis=1)
    noise = errors[:, 1:] + errors[:, :-1]
    rows = advantages.shape[1]
    true = np.clip((advantages**2 - noise).mean(0), 0.0, None)
    assigners = {}
    for name, push in pushed.items():
        of_rows = push.cpu().double().unflatten(1, (rows, -1)).mean(2).numpy()
        sums = _sums(of_rows, advantages, noise, group_size)
        assigners[name] = {
            "correlation": bootstrap(_correlation, sums),
            "of_ceiling": bootstrap(lambda s: _correlation(s) / _ceiling(s), sums),
        }
    return {
        "rows": rows,
        "samples": len(values),
        "error": float(np.sqrt(errors[:, :-1]).mean()),
        "decided": (true / max(float(true.sum()), 1e-12)).tolist(),
        "ceiling": bootstrap(_ceiling, _sums(advantages, advantages, noise, group_size)),
        "assigners": assigners,
    }


def _sums(x: Numbers, y: Numbers, noise: Numbers, group_size: int) -> Numbers:
    """(P, 7): count, and sums of x, y, x^2, y^2, x y and the noise of y over each prompt's samples and rows."""
    columns = [np.ones_like(x), x, y, x**2, y**2, x * y, noise]
    return np.stack([c.reshape(len(x) // group_size, -1).sum(1) for c in columns], axis=1)


def _correlation(sums: Numbers) -> Numbers:
    """(..., 7) to Pearson's correlation (...); 0 where one of them does not vary."""
    n, x, y, xx, yy, xy, _ = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.clip(xx - x * x / n, 0, None) * np.clip(yy - y * y / n, 0, None))
    return np.divide(xy - x * y / n, spread, out=np.zeros_like(xy), where=spread > 1e-12)


def _ceiling(sums: Numbers) -> Numbers:
    """(..., 7) to the correlation of the exact y with the measured one (...); nan where noise is all there is."""
    n, _, y, _, yy, _, noise = np.moveaxis(sums, -1, 0)
    spread = yy - y * y / n
    share = np.divide(noise, spread, out=np.full_like(spread, math.inf), where=spread > 1e-12)
    return np.where(share < 1, np.sqrt(np.clip(1 - share, 1e-12, None)), math.nan)
