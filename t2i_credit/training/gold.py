"""Going gold: where every sample of a group fails, a golden reference takes the place of the last one (2510.07790).

The reference is an image that fulfils the prompt, as the codes of the model's own tokenizer. What sampling would have
known about it (the log-probs of both prompts) is computed under the policy that sampled the others. It comes from the
prompt's own file, or the embedded world of the prompt draws it. Judges no image.
Shapes: P prompts, G samples each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, PromptError, one_line
from ..interfaces import Prompt, Rollout
from ..rollout.images import UNREADABLE, from_uint8, read_image
from ..rollout.logprobs import STATISTICS
from ..rollout.sampling import derive_seed
from .policy import Policy

World = Callable[[Prompt, int], NDArray[np.uint8] | None]

# (prompt, seed) to an image (3, h, w) in [0, 1] that fulfils the prompt; None = there is none
ReferenceImage = Callable[[Prompt, int], Tensor | None]


def failed_groups(rewards: Tensor, group_size: int, fail_below: float) -> Tensor:
    """Groups none of whose rewards is above `fail_below`: (B,) to (P,) bool."""
    return rewards.unflatten(0, (-1, group_size)).amax(1) <= fail_below


@torch.no_grad()
def go_gold(
    rollout: Rollout, failed: Tensor, seed: int, *, policy: Policy, reference_image: ReferenceImage
) -> tuple[Rollout, Tensor]:
    """The rollout with the last sample of each failed group replaced by a golden reference.

    Args:
        rollout: B samples.
        failed: (P,) bool.
        seed: the reference of group p is drawn from (seed, p).
        policy: that sampled them.
        reference_image: where references come from; a prompt that has none leaves its group as it is.

    Returns:
        The rollout, gold where a reference stands, and the rows that were replaced, (N,).
    """
    size, sampler = rollout.group_size, policy.sampler or policy.model
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
    # a reference was not sampled: no truncation applies to it
    how = {"cfg_scale": policy.cfg_scale, "temperature": policy.temperature}
    fields = policy.model(condition, tokens, want=wanted, **how)
    fields |= {"tokens": tokens, "sampling_logprobs": fields["guided_logprobs"]}
    fields |= {"images": sampler.decode(tokens).float(), "gold": torch.ones_like(rows).bool()}
    if rollout.alternatives is not None and rollout.alternative_logprobs is not None:
        none = torch.full_like(rollout.alternatives[rows], -1)
        unknown = torch.full_like(rollout.alternative_logprobs[rows], torch.nan)
        fields |= {"alternatives": none, "alternative_logprobs": unknown}
    placed = {n: getattr(rollout, n).index_copy(0, rows, found) for n, found in fields.items()}
    return replace(rollout, **placed), rows


class References:
    """`(prompt, seed)` to an image (3, h, w) in [0, 1] that fulfils the prompt, or None where there is none.

    Args:
        world: draws a scene (h, w, 3) for a prompt of its own, or None for one that it never draws; None = no world.
    """

    def __init__(self, world: World | None) -> None:
        self.world = world

    def __call__(self, prompt: Prompt, seed: int) -> Tensor | None:
        if prompt.reference is not None:
            return from_uint8([_read(prompt)])[0]
        drawn = self.world(prompt, seed) if self.world else None
        return None if drawn is None else from_uint8([drawn])[0]

    def check_files(self, prompts: Sequence[Prompt]) -> None:
        """Raises PromptError if a file is no image, ConfigError if no prompt has a reference."""
        for prompt in _one_each(prompts):
            _read(prompt)
        if not any(self(prompt, 0) is not None for prompt in prompts):
            raise ConfigError(
                "rollout.gold: true is refused: no prompt has a golden reference; give them a "
                "'reference' in the prompt file, or use gold false"
            )

    def check_sizes(self, prompts: Sequence[Prompt], model: Any) -> None:
        """Raises PromptError or ConfigError if an image is not of the size that the model's tokenizer takes."""
        tokens = torch.zeros(1, model.grid[0] * model.grid[1], dtype=torch.long)
        height, width = model.decode(tokens.to(model.device)).shape[-2:]
        takes = f"the model takes {width} x {height} pixels (width x height)"
        for prompt in _one_each(prompts):
            found = _read(prompt).shape
            if found[:2] != (height, width):
                raise PromptError(
                    f"{prompt.reference}: reference of prompt {prompt.text!r}: {found[1]} x {found[0]} "
                    f"pixels; {takes}"
                )
        drawn = next(
            (d for p in prompts if self.world and (d := self.world(p, 0)) is not None), None
        )
        if drawn is not None and drawn.shape[:2] != (height, width):
            raise ConfigError(
                f"rollout.gold: true is refused: scenes are {drawn.shape[1]} x {drawn.shape[0]} pixels; {takes}"
            )


def _one_each(prompts: Sequence[Prompt]) -> list[Prompt]:
    """A prompt for every file."""
    return list({p.reference: p for p in prompts if p.reference is not None}.values())


def _read(prompt: Prompt) -> NDArray[np.uint8]:
    """The prompt's file as (h, w, 3).

    Raises:
        PromptError: it is no image, or cannot be read.
    """
    try:
        return read_image(str(prompt.reference))
    except UNREADABLE as error:
        raise PromptError(
            f"{prompt.reference}: reference of prompt {prompt.text!r}: cannot be read as an image ({one_line(error)})"
        ) from None
