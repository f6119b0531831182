"""Guided sampling of image tokens that keeps what both prompts thought of every token. Scores and trains nothing.

Shapes: P prompts, G samples each, B = P*G, T = H*W image tokens in raster order, V codes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ModelError, UserError
from ..interfaces import Condition, ImageTokenModel, Prompt, Rollout
from . import logprobs as statistics
from .alternatives import likeliest_others
from .captured import eager_reason, sample_captured

# What a derived seed is for: the first number of its key, so that no use has the noise of another.
TRAINING, PROBE, GOLD = 1, 2, 3
BENCH = 4
TRUTH, REDRAW, TIES = 5, 6, 7
ESTIMATE = 8
MAP = 10
CRITIC = 11
EVALUATION_DOMAIN = 0x6576616C  # "eval"

# What a rollout keeps if it is asked for; see `sample_rollout`.
OPTIONAL = ("full_kl", "guided_entropy", "code_spread", "code_shift")


def derive_seed(*key: int) -> int:
    """A 63-bit seed from a tuple of numbers such as (purpose, seed, step); other tuples give unrelated seeds."""
    # both halves of every number, and how many there are: numpy pads short keys with zeros
    words = [len(key), *(word for k in key for word in (k & 0xFFFFFFFF, k >> 32))]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def keeping(fields: Collection[str]) -> dict[str, bool]:
    """The arguments of `sample_rollout` under which it keeps these fields, beside those that it always keeps."""
    return {name: name in fields for name in OPTIONAL}


def sampling_noise(seed: int, first_sample: int, samples: int, tokens: int) -> Tensor:
    """Uniform noise (samples, tokens) float64 in [0, 1): row i depends on (seed, first_sample + i) only."""
    rows = [
        np.random.Generator(np.random.Philox(key=[seed, first_sample + i])).random(tokens)
        for i in range(samples)
    ]
    return torch.from_numpy(np.stack(rows))


def draw(logprobs: Tensor, noise: Tensor) -> Tensor:
    """The code at which the cumulative probability passes the noise: (B, V), (B,) in [0, 1) to (B,)."""
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    level = noise[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, level, right=True)[:, 0].clamp(max=logprobs.shape[1] - 1)


def truncate(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Keeps the top_k largest logits (0 = all), then the smallest set of codes with mass >= top_p; others -inf."""
    # Not transformers' warpers: a step that is recorded on a GPU must not touch the host, and they do on torch 2.14.
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k)[0][:, -1:], -math.inf)
    if top_p < 1.0:
        ordered, codes = logits.sort(-1)
        dropped = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        dropped = pad(dropped[:, :-1], (0, 1))  # the likeliest code always stays
        logits = logits.masked_fill(dropped.scatter(1, codes, dropped), -math.inf)
    return logits


@torch.no_grad()
def sample_rollout(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    *,
    group_size: int,
    cfg_scale: float,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int,
    full_kl: bool = False,
    batch_size: int | None = None,
    first_sample: int = 0,
    guided_entropy: bool = False,
    negative_branch: bool = True,
    code_spread: bool = False,
    code_shift: bool = False,
    alternatives: int = 0,
) -> Rollout:
    """Samples `group_size` images of each prompt under guidance g = u + cfg_scale (c - u).

    c and u are the logits under the positive and the negative prompt, two rows of one batch. The same seed gives the
    same tokens under any `batch_size`.

    Args:
        model: the generator.
        prompts: P prompts; their `negative` (None = the model's null prompt) is the other branch.
        group_size: G.
        cfg_scale: guidance scale, 1 = none.
        temperature: above 0, applied after guidance.
        top_k, top_p: truncation after temperature; 0 and 1 = none.
        seed: 0 to 2**63 - 1.
        full_kl: also keep the exact KL(positive || negative) of every step.
        batch_size: most samples decoded together; None = all.
        first_sample: number of the first sample in the whole batch, where this call makes a part of it.
        guided_entropy: also keep the entropy of the guided distribution.
        negative_branch: False drops the negative branch where cfg_scale is 1 and nothing needs it.
        code_spread, code_shift: also keep how much each token could change the look (see logprobs.py).
        alternatives: also keep so many of the likeliest other codes of every token, in the guided, tempered distribution
            before truncation, which `guided_logprobs` is of.

    Returns:
        A rollout of B = P*G samples on the model's device.

    Raises:
        UserError: a setting out of range.
        ModelError: a prediction that is not a number.
    """
    _check(prompts, group_size, cfg_scale, temperature, top_k, top_p, batch_size, seed)
    negative_branch = negative_branch or cfg_scale != 1.0 or full_kl or code_shift
    condition = model.condition(
        [p.text for p in prompts], [p.negative for p in prompts] if negative_branch else None
    )
    asked = (full_kl, guided_entropy, code_spread, code_shift)
    settings: dict[str, Any] = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "optional": [name for name, wanted in zip(OPTIONAL, asked, strict=True) if wanted],
        "alternatives": alternatives,
    }
    parts = []
    for index, samples in batches(len(prompts), group_size, batch_size):
        start = first_sample + index[0] * group_size + samples.start
        count = len(index) * len(samples)
        noise = sampling_noise(seed, start, count, model.grid[0] * model.grid[1])
        chosen = condition.select(torch.tensor(index, device=model.device))
        part = decode_batch(model, chosen, len(samples), noise.to(model.device), **settings)
        part["images"] = model.decode(part["tokens"]).float()
        parts.append(part)
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if bool(columns["sampling_logprobs"].isnan().any()):
        raise ModelError(
            "the generator's predictions are not numbers: its weights are damaged, or too large for its dtype"
        )
    tokens = columns["tokens"]
    return Rollout(
        prompts=[p for p in prompts for _ in range(group_size)],
        group_size=group_size,
        mask=torch.ones_like(tokens, dtype=torch.bool),
        negative_logprobs=columns.pop("negative_logprobs", None),
        **columns,
    )


def batches(prompts: int, group_size: int, batch_size: int | None) -> list[tuple[list[int], range]]:
    """Which prompts, and which samples of each, are decoded together: whole groups where they fit, else parts."""
    size = batch_size or prompts * group_size
    if size >= group_size:
        per = size // group_size
        return [
            (list(range(i, min(i + per, prompts))), range(group_size))
            for i in range(0, prompts, per)
        ]
    return [
        ([p], range(i, min(i + size, group_size)))
        for p in range(prompts)
        for i in range(0, group_size, size)
    ]


def decode_batch(
    model: ImageTokenModel,
    condition: Condition,
    group_size: int,
    noise: Tensor,
    *,
    cfg_scale: float,
    temperature: float,
    top_k: int,
    top_p: float,
    optional: Collection[str] = (),
    alternatives: int = 0,
    keep: bool = True,
    capture: bool = True,
) -> dict[str, Tensor]:
    """One decoding batch: noise (B, T) to tokens and their log-probabilities, each (B, T), those of K alternatives (B, T, K).

    `optional` names what of OPTIONAL is kept, too. `keep=False` gives the tokens alone, `capture=False` records no step
    where a GPU could: the bench measures by them what keeping the rest costs, and what recording saves.
    """
    truncated = top_k > 0 or top_p < 1.0

    def drawn(positive: Tensor, negative: Tensor | None, level: Tensor) -> dict[str, Tensor]:
        """The next token and what is kept of it: logits (B, V) and noise (B,) to {name: (B,) or (B, K)}."""
        guided = statistics.guided_logits(
            positive, negative, cfg_scale=cfg_scale, temperature=temperature
        )
        guided_logprobs = guided.log_softmax(-1)
        sampling = truncate(guided, top_k, top_p).log_softmax(-1) if truncated else guided_logprobs
        tokens = draw(sampling, level)
        kept = {"tokens": tokens}
        if keep:
            kept |= _kept(tokens, positive, negative, guided_logprobs, optional, model)
            kept["sampling_logprobs"] = (
                _taken(sampling, tokens) if truncated else kept["guided_logprobs"]
            )
            if alternatives:
                others = likeliest_others(guided_logprobs, tokens, alternatives)
                kept["alternatives"], kept["alternative_logprobs"] = others
        return kept

    state = model.prefill(condition)
    if capture and eager_reason(model) is None:
        return sample_captured(model, state, group_size, noise, drawn)
    state = model.expand(state, group_size)
    steps: dict[str, list[Tensor]] = {}
    tokens = None
    for t in range(noise.shape[1]):
        kept = drawn(*model.advance(state, tokens), noise[:, t])
        tokens = kept["tokens"]
        for name, column in kept.items():
            steps.setdefault(name, []).append(column)
    return {name: torch.stack(columns, 1) for name, columns in steps.items()}


def _kept(
    tokens: Tensor,
    positive: Tensor,
    negative: Tensor | None,
    guided_logprobs: Tensor,
    optional: Collection[str],
    model: ImageTokenModel,
) -> dict[str, Tensor]:
    """What is kept of a step's tokens (B,) and logits (B, V), each (B,); every branch is normalised once."""
    positive_logprobs = positive.log_softmax(-1, dtype=torch.float32)
    found = {
        "logprobs": _taken(positive_logprobs, tokens),
        "guided_logprobs": _taken(guided_logprobs, tokens),
        "entropy": _entropy(positive_logprobs),
    }
    if negative is not None:
        negative_logprobs = negative.log_softmax(-1, dtype=torch.float32)
        found["negative_logprobs"] = _taken(negative_logprobs, tokens)
        if "full_kl" in optional:
            found["full_kl"] = statistics.full_kl(positive_logprobs, negative_logprobs)
        if "code_shift" in optional:
            found["code_shift"] = statistics.code_shift(positive, negative, model.codebook)
    if "guided_entropy" in optional:
        found["guided_entropy"] = _entropy(guided_logprobs)
    if "code_spread" in optional:
        found["code_spread"] = statistics.code_spread(positive, model.codebook)
    return found


def _taken(logprobs: Tensor, tokens: Tensor) -> Tensor:
    """(B, V), (B,) to (B,)."""
    return logprobs.gather(1, tokens[:, None])[:, 0]


def _entropy(logprobs: Tensor) -> Tensor:
    """Nats, (B, V) to (B,). A code of probability 0 (-inf) counts 0."""
    finite = logprobs.clamp(min=torch.finfo(logprobs.dtype).min)
    return -(logprobs.exp() * finite).sum(-1)


def _check(
    prompts: Sequence[Prompt],
    group_size: int,
    cfg_scale: float,
    temperature: float,
    top_k: int,
    top_p: float,
    batch_size: int | None,
    seed: int,
) -> None:
    wrong = {
        "prompts: empty; at least one": not prompts,
        f"group_size: {group_size}; at least 1": group_size < 1,
        f"cfg_scale: {cfg_scale}; at least 1": not 1 <= cfg_scale < math.inf,
        f"temperature: {temperature}; above 0": not 0 < temperature < math.inf,
        f"seed: {seed}; 0 to 2**63 - 1": not 0 <= seed < 2**63,
        f"top_k: {top_k}; 0 (off) or more": top_k < 0,
        f"top_p: {top_p}; above 0, at most 1 (off)": not 0 < top_p <= 1,
        f"batch_size: {batch_size}; at least 1": batch_size is not None and batch_size < 1,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(message)
