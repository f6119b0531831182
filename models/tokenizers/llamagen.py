"""LlamaGen's published image tokenizers: their names to those of transformers' `JanusVQVAE`, and back. Runs none.

A file tells its own sizes: vq_ds16_t2i.pt and vq_ds16_c2i.pt (a code for 16 x 16 pixels), vq_ds8_c2i.pt (8 x 8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

from ...errors import ModelError
from ..torch_files import fill, read_tensors, shape_of
from .taming import GROUPS, TamingTokenizer

WHAT = "LlamaGen"
UNUSED = {"quantize.codebook_used", "freqs_cis"}  # a record of training, and a table

_VQ_NAMES = (  # theirs, ours; * is a block's number
    ("encoder.conv_blocks.*.res.", "encoder.down.*.block."),
    ("encoder.conv_blocks.*.", "encoder.down.*."),
    ("decoder.conv_blocks.*.res.", "decoder.up.*.block."),
    ("decoder.conv_blocks.*.", "decoder.up.*."),
    ("coder.mid.0.", "coder.mid.block_1."),
    ("coder.mid.1.", "coder.mid.attn_1."),
    ("coder.mid.2.", "coder.mid.block_2."),
)


def _rule(name: str, other: str) -> tuple[str, str]:
    """Pattern and replacement from one name to the other."""
    return re.escape(name).replace(r"\*", r"(\d+)"), other.replace("*", r"\1")


_VQ = tuple(_rule(theirs, ours) for theirs, ours in _VQ_NAMES)
_VQ_BACK = tuple(_rule(ours, theirs) for theirs, ours in _VQ_NAMES)


def read_llamagen(folder: Path) -> TamingTokenizer:
    """The image tokenizer of a folder that holds one published file, vq*.pt or vq*.safetensors.

    Raises:
        ModelError: there is none, or more than one, or it is damaged.
    """
    found = sorted([*folder.glob("vq*.pt"), *folder.glob("vq*.safetensors")])
    if len(found) != 1:
        raise ModelError(
            f"{folder}: holds {len(found)} files vq*.pt or vq*.safetensors; one is needed"
        )
    tokenizer = TamingTokenizer(from_tensors(read_tensors(found[0]), found[0]))
    tokenizer.files = found
    return tokenizer


def from_tensors(tensors: Mapping[str, Tensor], path: Path) -> JanusVQVAE:
    """The image tokenizer whose sizes the tensors tell.

    Raises:
        ModelError: they are of another architecture; the message names `path`, where they come from.
    """
    codes, width = shape_of(tensors, path, "quantize.embedding.weight", 2, WHAT)
    base = shape_of(tensors, path, "encoder.conv_in.weight", 4, WHAT)[0]
    blocks = [re.match(r"encoder\.conv_blocks\.(\d+)\.res\.(\d+)\.", name) for name in tensors]
    numbers = {(int(block[1]), int(block[2])) for block in blocks if block} or {(0, 0)}
    levels = 1 + max(level for level, _ in numbers)
    last = [f"encoder.conv_blocks.{i}.res.0.conv2.weight" for i in range(levels)]
    channels = [shape_of(tensors, path, name, 4, WHAT)[0] for name in last]
    if any(count % GROUPS or count % base for count in (base, *channels)):
        raise ModelError(
            f"{path}: {base} channels, and {channels} in the encoder's levels; multiples of {GROUPS} and of the "
            "first are needed"
        )
    config = JanusVQVAEConfig(
        embed_dim=width,
        num_embeddings=codes,
        latent_channels=shape_of(tensors, path, "quant_conv.weight", 4, WHAT)[1],
        base_channels=base,
        channel_multiplier=[count // base for count in channels],
        num_res_blocks=1 + max(block for _, block in numbers),
    )
    vq = JanusVQVAE(config)
    fill(vq, {_renamed(name, _VQ): t for name, t in tensors.items()}, path, unused=UNUSED)
    return vq.to(tensors["quantize.embedding.weight"].dtype).eval()


def published_tensors(vq: JanusVQVAE) -> dict[str, Tensor]:
    """The tensors of an image tokenizer under their published names."""
    return {_renamed(name, _VQ_BACK): t.contiguous() for name, t in vq.state_dict().items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in rules:
        name = re.sub(pattern, ours, name)
    return name
