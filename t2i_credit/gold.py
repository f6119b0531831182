"""Going gold: where every sample of a group fails, a golden reference takes the place of the last one (2510.07790).

The reference is an image that fulfils the prompt, as the codes of the model's own tokenizer. What sampling would have
known about it (the log-probs of both prompts) is computed under the policy that sampled the others. Judges no image.
Shapes: P prompts, G samples each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .interfaces import Prompt, Rollout
from .logprobs import STATISTICS
from .rollout import derive_seed

# (prompt, seed) to an image (3, h, w) in [0, 1] that fulfils the prompt; None = there is none
ReferenceImage = Callable[[Prompt, int], Tensor | None]


def failed_groups(rewards: Tensor, group_size: int, fail_below: float) -> Tensor:
    """Groups none of whose rewards is above `fail_below`: (B,) to (P,) bool."""
    return rewards.unflatten(0, (-1, group_size)).amax(1) <= fail_below


@torch.no_grad()
def go_gold(
    rollout: Rollout,
    failed: Tensor,
    seed: int,
    *,
    model: Any,
    sampler: Any,
    reference_image: ReferenceImage,
    cfg_scale: float,
    temperature: float,
) -> tuple[Rollout, Tensor]:
    """The rollout with the last sample of each failed group replaced by a golden reference.

    Args:
        rollout: B samples.
        failed: (P,) bool.
        seed: the reference of group p is drawn from (seed, p).
        model: the policy that sampled them; its `__call__` is the training pass.
        sampler: the same model without accelerate's wrapping.
        reference_image: where references come from; a prompt that has none leaves its group as it is.
        cfg_scale, temperature: of the guided distribution.

    Returns:
        The rollout, gold where a reference stands, and the rows that were replaced, (N,).
    """
    size = rollout.group_size
    images = {}
    for group in failed.nonzero().flatten().tolist():
        image = reference_image(rollout.prompts[group * size], derive_seed(seed, group))
        if image is not None:
            images[group * size + size - 1] = image
    device = rollout.tokens.device
    rows = torch.tensor(list(images), dtype=torch.long, device=device)
    if not images:
        return rollout, rows
    pictures = torch.stack(list(images.values()))
    tokens = sampler.encode(pictures.to(device, sampler.codebook.dtype))
    prompts = [rollout.prompts[row] for row in images]
    condition = sampler.condition([p.text for p in prompts], [p.negative for p in prompts])
    wanted = [name for name in STATISTICS if getattr(rollout, name, None) is not None]
    fields = model(
        condition, tokens, want=wanted, cfg_scale=cfg_scale, temperature=temperature
    )  # a reference was not sampled: no truncation applies to it
    fields |= {"tokens": tokens, "sampling_logprobs": fields["guided_logprobs"]}
    fields |= {"images": sampler.decode(tokens).float(), "gold": torch.ones_like(rows).bool()}
    placed = {n: getattr(rollout, n).index_copy(0, rows, found) for n, found in fields.items()}
    return replace(rollout, **placed), rows
