"""LlamaGen's published files: their names and layers to those of transformers, and back. Runs no model.

The original keeps queries, keys and values in one matrix and turns neighbouring pairs of a head's values; LlamaModel has
three matrices and turns value i with value i + head_dim / 2, so the rows of queries and keys are put in that order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.janus.modeling_janus import JanusVQVAE

from ..errors import ModelError
from .bounds import read_object, require_sizes
from .files import (
    TOKENIZER,
    inside,
    load_part,
    load_weights,
    require_one,
)
from .tokenizers.llamagen import UNUSED, WHAT, from_tensors, published_tensors
from .torch_files import fill as put
from .torch_files import read_tensors, shape_of

MODEL_TYPE, CLASS_MODEL = "llamagen_t2i", "llamagen_c2i"
GPT, VQ, T5 = "gpt.safetensors", "vq.safetensors", "t5"
MOST_SIDE = 256  # tokens of a picture's side

# published name -> ours, on both sides of a layer's number
_BLOCK = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE = {
    "tok_embeddings.weight": "language_model.embed_tokens.weight",
    "norm.weight": "language_model.norm.weight",
    "output.weight": "output.weight",
    "cls_embedding.cap_proj.fc1.weight": "caption_embedding.fc1.weight",
    "cls_embedding.cap_proj.fc2.weight": "caption_embedding.fc2.weight",
    "cls_embedding.uncond_embedding": "caption_embedding.uncond_embedding",
    "cls_embedding.embedding_table.weight": "caption_embedding.embedding_table.weight",
}


class Parts(NamedTuple):
    """What the files of a folder hold.

    Attributes:
        backbone: sizes of the transformer.
        side: of the grid of image tokens.
        caption: positions and width of the text features; of a class-conditional model 1, and its classes and the null.
        vq: the image tokenizer.
        t5, tokenizer: of the text encoder, or None.
        gpt: the published tensors of the transformer.
        gpt_path: where they lie.
    """

    backbone: LlamaConfig
    side: int
    caption: tuple[int, int]
    vq: JanusVQVAE
    t5: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    gpt: dict[str, Tensor]
    gpt_path: Path


def read(root: Path) -> Parts:
    """The parts of a folder's model; see models/llamagen.py for its config.json."""
    require_sizes(root / "config.json")
    config = read_object(root / "config.json")
    kind = config.get("model_type", MODEL_TYPE)
    side, heads = (_whole_number(root, config, key) for key in ("grid", "heads"))
    if side > MOST_SIDE:
        raise ModelError(
            f"{root / 'config.json'}: grid: {side} is not allowed; at most {MOST_SIDE}"
        )
    gpt, gpt_path = _tensors(root, config, "gpt", GPT)
    vq, vq_path = _tensors(root, config, "vq", VQ)
    codes, hidden = shape_of(gpt, gpt_path, "tok_embeddings.weight", 2, WHAT)
    classes = kind == CLASS_MODEL
    known = "embedding_table.weight" if classes else "uncond_embedding"
    caption = shape_of(gpt, gpt_path, f"cls_embedding.{known}", 2, WHAT)
    if classes:
        caption = (1, caption[0])
    inner, _ = shape_of(gpt, gpt_path, "layers.0.feed_forward.w1.weight", 2, WHAT)
    layers = len({name.split(".")[1] for name in gpt if name.startswith("layers.")})
    if hidden % (4 * heads):
        raise ModelError(
            f"{root / 'config.json'}: heads: {heads} does not fit {gpt_path.name}; "
            f"4 x heads must divide its width {hidden}"
        )
    for name in (name for name in gpt if name.endswith("attention.wqkv.weight")):
        if (found := shape_of(gpt, gpt_path, name, 2, WHAT)) != (3 * hidden, hidden):
            raise ModelError(
                f"{gpt_path}: {name} has shape {found}; the model needs {(3 * hidden, hidden)}"
            )
    t5, tokenizer = (None, None) if classes else _text_encoder(root, config)
    if t5 is not None and t5.config.d_model != caption[1]:
        raise ModelError(
            f"{root / config['t5']}: a text encoder of width {t5.config.d_model}; {gpt_path.name} takes {caption[1]}"
        )
    backbone = backbone_config(
        codes=codes,
        hidden=hidden,
        inner=inner,
        layers=layers,
        heads=heads,
        inputs=caption[0] + side * side,
    )
    seen = (caption[0], caption[1])
    has = shape_of(vq, vq_path, "quantize.embedding.weight", 2, WHAT)[0]
    if has != codes:
        raise ModelError(f"{vq_path}: {has} codes; the transformer has {codes}")
    image = from_tensors(vq, vq_path)
    return Parts(backbone, side, seen, image, t5, tokenizer, gpt, gpt_path)


def fill(model: nn.Module, parts: Parts) -> None:
    """Puts the published tensors of the transformer into a model made of the parts, in their own number format."""
    ours = {name for name in model.state_dict() if not name.startswith(("vq.", "t5."))}
    heads = parts.backbone.num_attention_heads
    tensors = from_published(parts.gpt, heads)
    put(model, tensors, parts.gpt_path, wanted=ours, unused=UNUSED)
    dtype = parts.gpt["tok_embeddings.weight"].dtype
    for name, parameter in model.named_parameters():  # not the rotary table, which is a buffer
        if name in ours:
            parameter.data = parameter.data.to(dtype)


def from_published(gpt: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """The published tensors of the transformer under our names."""
    found = {}
    for name, tensor in gpt.items():
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", name)
        if layer is None:
            found[_OUTSIDE.get(name, name)] = tensor
            continue
        front, part = f"language_model.layers.{layer[1]}", layer[2]
        if part != "attention.wqkv":
            found[f"{front}.{_BLOCK.get(part, part)}.weight"] = tensor
            continue
        queries, keys, values = tensor.chunk(3)
        found[f"{front}.self_attn.q_proj.weight"] = _halves(queries, heads)
        found[f"{front}.self_attn.k_proj.weight"] = _halves(keys, heads)
        found[f"{front}.self_attn.v_proj.weight"] = values
    return found


def to_published(model: Any) -> dict[str, Tensor]:
    """Inverse of `from_published`, of a LlamaGenModel."""
    heads = model.language_model.config.num_attention_heads
    state = model.state_dict()
    found = {name: state[ours] for name, ours in _OUTSIDE.items() if ours in state}
    for i in range(model.language_model.config.num_hidden_layers):
        front = f"language_model.layers.{i}"
        for published, ours in _BLOCK.items():
            found[f"layers.{i}.{published}.weight"] = state[f"{front}.{ours}.weight"]
        q, k, v = (state[f"{front}.self_attn.{x}_proj.weight"] for x in "qkv")
        joined = torch.cat([_pairs(q, heads), _pairs(k, heads), v])
        found[f"layers.{i}.attention.wqkv.weight"] = joined
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write(model: Any, root: Path) -> None:
    """Writes the folder that `read` reads."""
    root.mkdir(parents=True, exist_ok=True)
    save_file(to_published(model), root / GPT, {"format": "pt"})
    save_file(published_tensors(model.vq), root / VQ, {"format": "pt"})
    config = {"model_type": model.model_type, "grid": model.grid[0], "gpt": GPT, "vq": VQ}
    config["heads"] = model.language_model.config.num_attention_heads
    if model.t5 is not None and model.tokenizer is not None:
        model.t5.save_pretrained(root / T5)
        model.tokenizer.save_pretrained(root / T5)
        config["t5"] = T5
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head: neighbouring pairs to first values, then second values."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _pairs(weight: Tensor, heads: int) -> Tensor:
    """Inverse of `_halves`."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _tensors(
    root: Path, config: dict[str, Any], key: str, default: str
) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a checkpoint that config.json names."""
    path = inside(root, config.get(key, default), f"config.json: {key}")
    if not path.is_file():
        raise ModelError(f"{path}: missing; config.json names it as {key}")
    return read_tensors(path), path


def _whole_number(root: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ModelError(
            f"{root / 'config.json'}: {key}: {value!r} is not allowed; a whole number above 0"
        )
    return value


def _text_encoder(root: Path, config: dict[str, Any]) -> tuple[Any, Any]:
    """The T5 encoder and its tokenizer, or two None where the folder names none."""
    if "t5" not in config:
        return None, None
    from transformers import AutoTokenizer, T5EncoderModel

    folder = inside(root, config["t5"], "config.json: t5")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no text encoder here; config.json names it as t5")
    require_one(folder, TOKENIZER, "a text encoder")
    tokenizer = load_part("tokenizer", folder, AutoTokenizer.from_pretrained)
    return load_weights(T5EncoderModel, folder), tokenizer


def backbone_config(
    *, codes: int, hidden: int, inner: int, layers: int, heads: int, inputs: int
) -> LlamaConfig:
    """The transformer's sizes; `inputs` is the longest sequence."""
    values: dict[str, Any] = {
        "vocab_size": codes,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": inputs,
        "rms_norm_eps": 1e-5,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return LlamaConfig(**values)
