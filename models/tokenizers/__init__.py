"""Image tokenizers by the layout of their files, and how one is read. Heavy imports happen when one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import ImageTokenizer

# kind -> what its folder holds
KINDS = {
    "chameleon": "vqgan.yaml and vqgan.ckpt, as Chameleon, Liquid, Anole and Lumina-mGPT have them",
    "janus": "transformers' JanusVQVAE",
    "emu3": "transformers' Emu3VQVAE",
    "llamagen": "LlamaGen's vq_ds16_t2i.pt, vq_ds16_c2i.pt or vq_ds8_c2i.pt",
    "vq_model": "diffusers' VQModel",
    "torchscript": "encoder.jit and decoder.jit, as NVIDIA's Cosmos tokenizers have them",
}


def read_image_tokenizer(folder: Path, settings: Any) -> ImageTokenizer:
    """The image tokenizer in a folder.

    Args:
        settings: an `ImageTokenizerDescription`.

    Raises:
        ModelError: a file is missing or damaged, or does not fit the settings; the message names it.
    """
    if settings.kind == "chameleon":
        from .taming import read_chameleon

        return read_chameleon(folder)
    if settings.kind == "llamagen":
        from .llamagen import read_llamagen

        return read_llamagen(folder)
    if settings.kind == "torchscript":
        from .torchscript import read_torchscript

        return read_torchscript(
            folder, levels=settings.levels, factor=settings.factor, frames=settings.frames
        )
    if settings.kind == "vq_model":
        from .vq_model import read_vq_model

        return read_vq_model(folder, patch=settings.patch)
    if settings.kind == "janus":
        from .taming import read_janus

        return read_janus(folder)
    from .emu3 import read_emu3

    return read_emu3(folder)
