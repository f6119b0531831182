"""Tiny described generators: causal language models of several architectures with image codes in their vocabulary, beside image
tokenizers in their published layouts. Holds no test."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import WORDS, tokenizer
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

from t2i_credit.yaml_text import write_yaml

CODES, GRID, LEVELS = 24, [4, 4], [3, 4, 2]
NAMES = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
MARKERS = {
    "boi": "<boi>",
    "null": "<unconditional>",
    "t2i": "<|t2i|>",
    "soi": "<|soi|>",
    "eol": "<eol>",
}
LIQUID = {
    "prompt": "{prompt} Generate an image based on this description.<boi>",
    "null_prompt": "<unconditional><boi>",
    "sampling": {"cfg_scale": 7.0, "temperature": 0.99, "top_k": 20, "top_p": 0.96},
}
ARCHITECTURES = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "qwen2",
    "qwen3",
    "llama",
    "mistral",
    "phi",
    "phi3",
    "olmo2",
    "granite",
    "cohere",
)


def write_causal_lm(folder: Path, architecture: str = "gemma", **more: Any) -> int:
    """A language model with its tokenizer; returns how many tokens the text has."""
    words = tokenizer(WORDS, NAMES, **MARKERS)
    text = len(words)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 160}
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    config = CONFIG_MAPPING[architecture](
        vocab_size=text + CODES, **{**sizes, **heads, **ids, "attention_dropout": 0.0, **more}
    )
    torch.manual_seed(0)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval()
    with torch.no_grad():  # so that prompts and guidance matter to a random model
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(1 if "embed" in name or "head" in name else 8)
        # a tied head that is large repeats its input
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        model.get_input_embeddings().weight.normal_(std=0.1 if tied else 0.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return text


def write_chameleon(folder: Path, codes: int = CODES) -> None:
    """vqgan.yaml and vqgan.ckpt, two pixels a code."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"embed_dim": 32, "num_embeddings": codes, "latent_channels": 32, "base_channels": 32}
    torch.manual_seed(1)
    vq = JanusVQVAE(JanusVQVAEConfig(**sizes, channel_multiplier=[1, 1], num_res_blocks=1))
    for level in (vq.encoder.down[-1], vq.decoder.up[0]):
        level.attn = nn.ModuleList()
    vq.quantize.embedding.weight.data.normal_()

    def published(name: str) -> str:
        return re.sub(r"^decoder\.up\.(\d)", lambda m: f"decoder.up.{1 - int(m[1])}", name)

    state = {published(name): tensor for name, tensor in vq.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.logvar": torch.zeros(())}}, folder / "vqgan.ckpt")
    sizes = {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "in_channels": 3, "out_ch": 3}
    ddconfig = {
        **sizes,
        "z_channels": 32,
        "attn_resolutions": [],
        "double_z": False,
        "resolution": 8,
    }
    params = {"embed_dim": 32, "n_embed": codes, "ddconfig": ddconfig}
    (folder / "vqgan.yaml").write_text(write_yaml({"model": {"params": params, "target": "x"}}))


class _Levels(nn.Module):
    """Codes and their vectors, as Cosmos's quantizer has them."""

    levels: Tensor
    steps: Tensor

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels))
        steps = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)
        self.register_buffer("steps", steps)


class _Quantize(_Levels):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        half = self.levels // 2
        z = z.movedim(1, -1)
        digits = torch.minimum((z.tanh() * half).round() + half, self.levels - 1)
        return (digits * self.steps).sum(-1).int(), ((digits - half) / half).movedim(-1, 1)


class _Look(_Levels):
    def forward(self, codes: Tensor) -> Tensor:
        half = self.levels // 2
        return ((codes[..., None] // self.steps % self.levels - half) / half).movedim(-1, 1)


def write_cosmos(folder: Path, *, frames: bool, whole: bool = False) -> None:
    """encoder.jit and decoder.jit in the parts of Cosmos's, two pixels a code; `whole`: each in one part alone."""
    levels = LEVELS
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(2)
    one = (1, 1, 1) if frames else (1, 1)
    two = (1, 2, 2) if frames else (2, 2)
    conv: Any = nn.Conv3d if frames else nn.Conv2d
    back: Any = nn.ConvTranspose3d if frames else nn.ConvTranspose2d
    width = len(levels)
    pixels = torch.zeros(2, 3, *(1, 6, 8)[not frames :])
    codes = torch.zeros(2, *(1, 3, 4)[not frames :], dtype=torch.int32)
    encoder = [
        ("encoder", conv(3, 8, two, stride=two)),
        ("quant_conv", conv(8, width, one)),
        ("quantizer", _Quantize(levels)),
    ]
    decoder = [
        ("inv_quant", _Look(levels)),
        ("post_quant_conv", conv(width, 8, one)),
        ("decoder", back(8, 3, two, stride=two)),
    ]
    for name, parts in (("encoder", encoder), ("decoder", decoder)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is old, and published
            example = pixels if name == "encoder" else codes
            made = nn.Sequential(OrderedDict(parts)).eval()
            made = nn.Sequential(made) if whole else made
            torch.jit.trace(made, example).save(folder / f"{name}.jit")


def describe(path: Path, **keys: Any) -> Path:
    """A description, as the preset of Liquid has it unless `keys` say otherwise."""
    images = {"kind": "chameleon", "path": "images"}
    tree = {"model_type": "causal_image", "language_model": "lm", "image_tokenizer": images}
    tree |= {"codes": "after_text", "grid": GRID, **LIQUID, **keys}
    path.write_text(write_yaml({k: v for k, v in tree.items() if v is not None}))
    return path


def write_tiny_liquid(folder: Path) -> Path:
    """A description of a Gemma with Chameleon's image tokenizer."""
    folder.mkdir(parents=True)
    write_causal_lm(folder / "lm", "gemma")
    write_chameleon(folder / "images")
    return describe(folder / "liquid.yaml")


def write_tiny_simplear(folder: Path) -> Path:
    """A description of a Qwen2 under another name, with a video tokenizer in TorchScript, and padding as null prompt."""
    folder.mkdir(parents=True)
    write_causal_lm(folder / "lm", "qwen2")
    config = folder / "lm" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen2"', '"model_type": "simpar"'))
    write_cosmos(folder / "images", frames=True)
    images = {
        "kind": "torchscript",
        "path": "images",
        "levels": LEVELS,
        "factor": 2,
        "frames": True,
    }
    keys = {"prompt": "<|t2i|>A highly realistic image of {prompt}<|soi|>", "null_prompt": None}
    return describe(folder / "simplear.yaml", architecture="qwen2", image_tokenizer=images, **keys)


def write_tiny_rows(folder: Path) -> Path:
    """A model folder, with row ends and scattered codes."""
    folder.mkdir(parents=True)
    text = write_causal_lm(folder / "lm", "llama")
    write_chameleon(folder / "images")
    places = [text + (7 * code) % CODES for code in range(CODES)]
    made = describe(folder / "rows.yaml", codes=places, row_end="<eol>")
    from t2i_credit.models import load_pretrained

    load_pretrained(str(made)).save_pretrained(folder / "whole")
    return folder / "whole"


def rewritten(folder: Path, change: Any) -> None:
    """A language model's tensors, changed."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
