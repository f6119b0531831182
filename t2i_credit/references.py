"""Where golden references come from: a prompt's own file, or else the renderer of the world that the prompts are of.

Encodes nothing; going gold is gold.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ConfigError, PromptError
from .interfaces import Prompt
from .pixels import from_uint8

if TYPE_CHECKING:
    from torch import Tensor

World = Callable[[Prompt, int], NDArray[np.uint8] | None]


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
        import torch

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
        with Image.open(str(prompt.reference)) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise PromptError(
            f"{prompt.reference}: reference of prompt {prompt.text!r}: cannot be read as an image ({reason})"
        ) from None
