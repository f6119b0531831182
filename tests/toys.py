"""Shared toys: a generator of a few thousand random weights and prompts that it knows. Holds no test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from t2i_credit.interfaces import Prompt
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer

WORDS = ["a", "photo", "of", "red", "blue", "circle", "square", "left"]
PROMPTS = (
    Prompt("a red circle"),
    Prompt("a photo of a blue square left of a red circle"),
    Prompt("a blue square", negative="a red circle"),
    Prompt("a photo of a red square", negative=""),
)


@dataclass(frozen=True)
class WideConfig(EmbeddedConfig):
    """Two rows of three tokens, so that a swap of width and height shows."""

    @property
    def grid(self) -> tuple[int, int]:
        return 2, 3


def tiny_model(
    config: type[EmbeddedConfig] = EmbeddedConfig, *, seed: int = 0, contrast: float = 10.0
) -> EmbeddedModel:
    """A generator of 2 x 2 tokens (16 x 16 pixels) and 32 codes; the same seed gives the same weights.

    Args:
        config: `EmbeddedConfig`, or a subclass with another grid.
        contrast: factor on head and text embedding, so that prompts and guidance matter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = config(
            image_size=16,
            patch=4,
            vq_channels=(8, 8),
            code_dim=4,
            codebook_size=32,
            hidden_size=32,
            layers=2,
            heads=2,
        )
        model = EmbeddedModel(sizes, build_text_tokenizer(WORDS)).eval()
        with torch.no_grad():
            model.image_head.weight.mul_(contrast)
            model.language_model.get_input_embeddings().weight.mul_(contrast)
            model.vq.quantize.embedding.weight.normal_()  # far apart, so that codes look different
    return model


def write_tiny_model(folder: Path) -> Path:
    """The model folder of `tiny_model`."""
    tiny_model().save_pretrained(folder)
    return folder
