"""The image tokenizer of taming-transformers in transformers' words, `JanusVQVAE`: that of Janus and LlamaGen, and the
VQGAN of Chameleon, Liquid, Anole and Lumina-mGPT, which has no attention but in its middle.

Janus and LlamaGen compare codes by direction: decoding normalises code vectors, so encoding normalises latents and codes
before the nearest-code search (`JanusVQVAE.encode` searches without, and finds other codes).

Shapes as in base.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

from ...errors import ConfigError, ModelError, one_line
from ...files import read_given
from ...yaml_text import parse_yaml
from ..bounds import named_errors, require_sizes
from ..files import hub_files, load_weights
from ..torch_files import fill, read_tensors, require_fit
from .base import SIGNED, ImageScale, ImageTokenizer, nearest

GROUPS = 32  # of JanusVQVAE's group norms
YAML, WEIGHTS = "vqgan.yaml", "vqgan.ckpt"
_SIZES = {  # of the published configuration, by what JanusVQVAEConfig calls them
    "base_channels": "ch",
    "channel_multiplier": "ch_mult",
    "num_res_blocks": "num_res_blocks",
    "in_channels": "in_channels",
    "out_channels": "out_ch",
    "latent_channels": "z_channels",
}


class TamingTokenizer(ImageTokenizer):
    """A `JanusVQVAE`.

    Args:
        vq: the networks.
        scale: of its pixels.
        directions: whether codes are compared by direction, and decoded at length 1.
    """

    def __init__(
        self, vq: JanusVQVAE, scale: ImageScale = SIGNED, *, directions: bool = True
    ) -> None:
        self.module, self.scale, self.directions = vq, scale, directions
        self.factor = 2 ** (len(vq.config.channel_multiplier) - 1)

    @property
    def codebook(self) -> Tensor:
        return self.module.quantize.embedding.weight

    def codes(self, pixels: Tensor) -> Tensor:
        latents = self.module.quant_conv(self.module.encoder(pixels))
        return nearest(latents, self.codebook, directions=self.directions)

    def vectors(self, tokens: Tensor) -> Tensor:
        found = self.codebook[tokens]
        return F.normalize(found, dim=-1) if self.directions else found

    def pixels(self, latents: Tensor) -> Tensor:
        return self.module.decoder(self.module.post_quant_conv(latents))


def read_chameleon(folder: Path) -> TamingTokenizer:
    """The image tokenizer of Chameleon as it is published: vqgan.yaml and vqgan.ckpt.

    Raises:
        ModelError: a file is missing or damaged, or of another layout; the message names it.
    """
    path, weights = folder / YAML, folder / WEIGHTS
    sizes = _sizes(path)
    tensors = {
        _reversed(name, len(sizes["channel_multiplier"])): tensor
        for name, tensor in read_tensors(weights).items()
        if not name.startswith("loss.")  # the discriminator of its training
    }

    def build() -> nn.Module:
        vq = JanusVQVAE(JanusVQVAEConfig(**sizes))
        for level in (vq.encoder.down[-1], vq.decoder.up[0]):  # the coarsest
            level.attn = nn.ModuleList()
        return vq

    with named_errors(path, "image tokenizer"), torch.device("meta"):
        outline = build()
    require_fit(outline, tensors, weights)
    vq = build()
    fill(vq, tensors, weights)
    found = TamingTokenizer(
        vq.to(tensors["quantize.embedding.weight"].dtype).eval(), directions=False
    )
    found.files = (path, weights)
    return found


def _sizes(path: Path) -> dict[str, Any]:
    """What a published configuration says, for JanusVQVAEConfig."""
    try:
        tree = parse_yaml(read_given(path), str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ConfigError as error:
        raise ModelError(one_line(error)) from None
    at = tree
    for key in ("model", "params", "ddconfig"):
        params, at = at, at.get(key) if isinstance(at, dict) else None
    if not isinstance(at, dict) or not isinstance(params, dict):
        raise ModelError(
            f"{path}: model.params.ddconfig: missing; is this a VQGAN's configuration?"
        )
    found: dict[str, Any] = {ours: at.get(theirs) for ours, theirs in _SIZES.items()}
    found |= {"embed_dim": params.get("embed_dim"), "num_embeddings": params.get("n_embed")}
    names = {"embed_dim": "embed_dim", "num_embeddings": "n_embed", **_SIZES}
    for ours, value in found.items():
        values = value if ours == "channel_multiplier" and isinstance(value, list) else [value]
        if not values or not all(type(one) is int and one > 0 for one in values):
            raise ModelError(f"{path}: {names[ours]}: {value!r:.80} is not allowed; above 0")
    if at.get("attn_resolutions"):
        said = f"{at['attn_resolutions']!r:.80} is not supported; Chameleon's tokenizer has none"
        raise ModelError(f"{path}: attn_resolutions: {said}")
    if at.get("double_z"):
        raise ModelError(f"{path}: double_z: true is not supported; of a VAE without codes")
    require_sizes(path, {names[ours]: value for ours, value in found.items()})
    levels: list[int] = found["channel_multiplier"]
    if any(found["base_channels"] * times % GROUPS for times in (1, *levels)):
        raise ModelError(f"{path}: ch: {found['base_channels']} is no multiple of {GROUPS}")
    return found


def _reversed(name: str, levels: int) -> str:
    """A tensor's name with the decoder's levels counted from the coarsest, as transformers does."""

    def other(found: re.Match[str]) -> str:
        return f"decoder.up.{levels - 1 - int(found[1])}."

    return re.sub(r"^decoder\.up\.(\d+)\.", other, name)


def read_janus(folder: Path) -> TamingTokenizer:
    """A `JanusVQVAE` that transformers saved."""
    found = TamingTokenizer(load_weights(JanusVQVAE, folder))
    found.files = hub_files(folder)
    return found
