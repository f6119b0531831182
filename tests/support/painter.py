"""A generator whose pictures the shapes detector can read: random tokens, clean objects. Needs no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer
from t2i_credit.worlds.shapes.grammar import prompt_set
from t2i_credit.worlds.shapes.scene import COLORS, SHAPES, Object, Scene, render

PROTOCOL = Protocol(images_per_prompt=3, cfg_scale=2.0, seed=4, batch_size=7)
PROMPTS = prompt_set(per_task=2)  # two of each of the six tasks


@dataclass(frozen=True)
class WideConfig(EmbeddedConfig):
    """Two rows of three tokens."""

    @property
    def grid(self) -> tuple[int, int]:
        return 2, 3


class Painter(EmbeddedModel):
    """The embedded generator, random, with a decoder that draws one clean object: the first token of an image
    chooses the shape, the second the colour."""

    def decode(self, tokens: Tensor) -> Tensor:
        pictures = [
            render(Scene((Object(list(SHAPES)[a % 5], list(COLORS)[b % 6], 24.0, 24.0, 9.0),)))[0]
            for a, b in tokens[:, :2].tolist()
        ]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def build(kind: type[EmbeddedModel], config: type[EmbeddedConfig]) -> Any:
    torch.manual_seed(0)
    sizes = {"vq_channels": (8, 16), "code_dim": 4, "codebook_size": 30}
    made = kind(
        config(**sizes, hidden_size=16, layers=1, heads=2),
        build_text_tokenizer(" ".join(p.text for p in PROMPTS).split()),
    ).eval()
    with torch.no_grad():
        made.image_head.weight.mul_(15)
        made.language_model.get_input_embeddings().weight.mul_(10)
    return made
