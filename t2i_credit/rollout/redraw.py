"""Fresh draws of every token of given images, the tokens before it kept. Changes no image and scores none.

Shapes: P prompts, G samples of each, B = P*G samples, T image tokens, V codes, K draws of each token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..interfaces import ImageTokenModel, Rollout
from . import logprobs as statistics
from .sampling import batches, draw, sampling_noise, truncate


@torch.no_grad()
def fresh_draws(
    model: ImageTokenModel,
    rollout: Rollout,
    draws: int,
    *,
    seed: int,
    first_sample: int = 0,
    batch_size: int | None = None,
    cfg_scale: float,
    temperature: float,
    top_k: int,
    top_p: float,
) -> Tensor:
    """(B, T, K) codes, each drawn as sampling would have gone on after the rollout's own tokens before it.

    Args:
        model: the generator.
        rollout: whole groups.
        draws: K.
        seed, first_sample: of the noise, see `sampling_noise`.
        batch_size: most samples decoded together; None = all.
        cfg_scale, temperature, top_k, top_p: how they were sampled.
    """
    size, device = rollout.group_size, rollout.tokens.device
    count, length = rollout.tokens.shape
    prompts = rollout.prompts[::size]
    negatives = [p.negative for p in prompts] if cfg_scale != 1.0 else None
    condition = model.condition([p.text for p in prompts], negatives)
    noise = sampling_noise(seed, first_sample, count, length * draws).unflatten(1, (length, draws))
    found = torch.empty(count, length, draws, dtype=torch.long, device=device)
    for index, samples in batches(len(prompts), size, batch_size):
        rows = torch.tensor([p * size + s for p in index for s in samples], device=device)
        tokens, levels = rollout.tokens[rows], noise[rows.cpu()].to(device)
        chosen = condition.select(torch.tensor(index, device=device))
        state = model.expand(model.prefill(chosen), len(samples))
        for t in range(length):
            positive, negative = model.advance(state, tokens[:, t - 1] if t else None)
            guided = statistics.guided_logits(
                positive, negative, cfg_scale=cfg_scale, temperature=temperature
            )
            likely = truncate(guided, top_k, top_p).log_softmax(-1)
            found[rows, t] = torch.stack([draw(likely, level) for level in levels[:, t].T], 1)
    return found
