"""How well an image fits its prompt, as a CLIP model judges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..config.values import Place
from ..errors import PromptError
from ..interfaces import Prompt
from ..prompts.limits import prompts_cut
from .clip_tower import ClipTower, Dtype, open_clip_tower

BatchSize = Annotated[int, Field(ge=1)]
Scale = Literal["cosine", "logit"]


class ClipReward:
    """The similarity of each image with its own prompt.

    A text model reads a few tokens (77 with most) and no more: `check` says whose end is lost.

    Range: "cosine" [-1, 1], in practice 0.1 to 0.4 with web-trained models; "logit" is that times the model's logit scale
    (100 with most), plus its bias if it has one.

    Attributes:
        name: of the reward, for messages.
        tower: the model.
        scale: see above.
        batch_size: most images in one forward pass.
    """

    def __init__(self, name: str, tower: ClipTower, scale: Scale, batch_size: int) -> None:
        self.name = name
        self.tower, self.scale, self.batch_size = tower, scale, batch_size

    def check(self, prompts: Sequence[Prompt]) -> list[str]:
        """A line about prompts that are read in part.

        Raises:
            PromptError: one has a word that the model cannot tell from other unknown ones.
        """
        for prompt in prompts:
            if unknown := self.tower.unknown_words(prompt.text):
                raise PromptError(
                    f"prompt {prompt.text!r}: {self.tower.name} does not know {unknown[0]!r}; name another CLIP model"
                )
        return prompts_cut(
            f"reward {self.name} ({self.tower.name})",
            [prompt.text for prompt in prompts],
            self.tower.text_tokens,
            self.tower.text_limit,
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, h, w) in [0, 1] and B prompts to (B,) float32, on the tower's device."""
        return self._fit(self.tower.images(images, self.batch_size), prompts)

    def differentiable(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The same with a gradient in the pixels; see `DifferentiableReward`."""
        return self._fit(self.tower.differentiable(images), prompts)

    def _fit(self, drawn: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Unit vectors (B, E) of the images to (B,)."""
        written = self.tower.texts([p.text for p in prompts], self.batch_size)
        cosine = (drawn * written).sum(-1)
        if self.scale == "cosine":
            return cosine
        return cosine * self.tower.logit_scale + self.tower.logit_bias


def clip(
    *,
    model: Place = "embedded",
    pretrained: Place | None = None,
    scale: Scale = "cosine",
    batch_size: BatchSize = 64,
    device: str | None = None,
    dtype: Dtype = "float32",
) -> ClipReward:
    """Builds the reward.

    Args:
        model: "embedded" (coloured shapes), an open_clip architecture, a hub id, or a folder; see `open_clip_tower`.
        pretrained: with an architecture, open_clip's tag of the weights, or a file.
        scale: "cosine", or "logit".
        batch_size: most images in one forward pass.
        device: null = a GPU if there is one.
        dtype: of the weights.

    Raises:
        ModelError: the model is not there, or does not fit.
    """
    tower = open_clip_tower(model, pretrained, device=device, dtype=dtype, reward="clip")
    return ClipReward("clip", tower, scale, batch_size)
