"""What the settings of a model folder may ask for: each case is one wrong value in a folder that loads, and one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus, write_tiny_llamagen
from toys import write_tiny_model

from t2i_credit.errors import ModelError
from t2i_credit.models import load_pretrained

KINDS = {
    "embedded": write_tiny_model,
    "janus": write_tiny_janus,
    "emu3": write_tiny_emu3,
    "llamagen": write_tiny_llamagen,
}
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    return {name: write(root / name) for name, write in KINDS.items()}


def edited(folder: Path, file: str, keys: str, value: Any) -> None:
    """Puts a value at dotted keys of a JSON file."""
    path = folder / file
    content = section = json.loads(path.read_text())
    *sections, key = keys.split(".")
    for name in sections:
        section = section[name]
    section[key] = value
    path.write_text(json.dumps(content))


def said(folder: Path) -> str:
    """What is said against a model when it is loaded or reads a prompt: one line, at once."""
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_pretrained(str(folder)).condition(["a red circle"], None)
    assert "\n" not in str(caught.value) and time.monotonic() - began < 20
    return str(caught.value)


TR, VQ, TOKENIZER = "transformer/config.json", "vq/config.json", "text_tokenizer/tokenizer.json"
CODE = "is code from the hub, which is not run; allowed: eager, sdpa, flex_attention"
VALUES = [
    # attention
    ("embedded", TR, "_attn_implementation", "a/b", CODE),
    ("embedded", TR, "attn_implementation", "kernels", CODE),
    ("janus", "config.json", "text_config._attn_implementation", "a/b", CODE),
    # sizes
    ("embedded", "config.json", "layers", 10**9, "layers: 1e+09 is not allowed; at most 1,000"),
    ("embedded", "config.json", "vq_layers", 10**6, "vq_layers: 1e+06 is not allowed"),
    ("embedded", "config.json", "codebook_size", 2**24, "codebook_size: 1.67772e+07 is not"),
    ("embedded", "config.json", "hidden_size", 2**20, "transformer/config.json: hidden_size: "),
    ("embedded", "config.json", "image_size", 2**20, "max_position_embeddings: "),
    ("embedded", "config.json", "code_dim", 2**20, "vq/config.json: latent_channels: "),
    ("embedded", "config.json", "vq_channels", [8] * 500, "vq_channels: 500 entries; at most 16"),
    ("embedded", TR, "head_dim", 2**20, "q_proj.weight has shape "),
    ("embedded", TR, "num_key_value_heads", 2**24, "k_proj.weight has shape "),
    ("embedded", VQ, "vq_embed_dim", 2**24, "vq_embed_dim: 16777216 does not fit"),
    ("janus", "config.json", "text_config.hidden_size", 2**20, "config.json: describes "),
    ("janus", "config.json", "text_config.vocab_size", 3, "lm_head.weight has shape "),
    ("janus", "config.json", "vq_config.num_res_blocks", 2**24, "num_res_blocks: 1.67772e+07 is"),
    ("janus", "config.json", "vq_config.base_channels", 2**24, "config.json: describes "),
    ("emu3", "config.json", "text_config.num_hidden_layers", 1000, "config.json: describes "),
    ("emu3", "config.json", "vq_config.embed_dim", 2**24, "config.json: describes "),
    ("llamagen", "config.json", "grid", 2000, "grid: 2000 is not allowed; at most 256"),
    ("llamagen", "t5/config.json", "num_layers", 10**9, "num_layers: 1e+09 is not allowed"),
    # what a library raises
    ("embedded", "config.json", "vq_channels", [7, 9], "config.json: the model cannot be read"),
    ("embedded", TR, "hidden_act", "nope", "config.json: the transformer cannot be read: KeyError"),
    ("embedded", TR, "rms_norm_eps", 0, "config.json: the transformer cannot be read"),
    ("embedded", TR, "dtype", "__class__", "config.json: the transformer cannot be read"),
    ("embedded", TR, "rope_parameters", {"rope_type": "nope"}, "the transformer cannot be read"),
    ("embedded", VQ, "norm_num_groups", 0, "norm_num_groups: 0 does not fit"),
    ("embedded", VQ, "lookup_from_codebook", True, "lookup_from_codebook: True does not fit"),
    ("janus", "config.json", "text_config.rms_norm_eps", 0, "config.json: the model cannot be"),
    ("janus", "config.json", "text_config.num_attention_heads", 0, "config.json: the model cannot"),
    ("emu3", "config.json", "vq_config.channel_multiplier", [], "config.json: the model cannot"),
    # special tokens
    ("janus", "generation_config.json", "bos_token_id", [1, 2], "the bos token is [1, 2]"),
    ("janus", "generation_config.json", "pad_token_id", -7, "the pad token is -7"),
    ("janus", "generation_config.json", "pad_token_id", True, "the pad token is True"),
    ("janus", "tokenizer.json", "model.vocab.red", 999_999, "tokenizer.json: the token 999999 has"),
    # tokenizers
    ("embedded", TOKENIZER, "pre_tokenizer", None, "tokenizer.json: pre_tokenizer: missing"),
    ("embedded", TOKENIZER, "model.vocab.red", -1, "tokenizer.json: damaged: invalid value"),
]


@pytest.mark.parametrize(("kind", "file", "keys", "value", "line"), VALUES)
def test_one_wrong_value_is_one_line(
    made: dict[str, Path],
    tmp_path: Path,
    kind: str,
    file: str,
    keys: str,
    value: Any,
    line: str,
) -> None:
    folder = Path(shutil.copytree(made[kind], tmp_path / kind))
    edited(folder, file, keys, value)
    assert line in said(folder)


DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
PIECE = {"SpecialToken": {"id": "<pad>", "type_id": 0}}
TOKENIZERS: dict[str, tuple[str, Any]] = {
    "normalizer: makes a text more than 64 times as long": (
        "normalizer",
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a"}, *[DOUBLED] * 34]},
    ),
    "normalizer: prepend has 5,000 letters; at most 4,096": (
        "normalizer",
        {"type": "Prepend", "prepend": "a" * 5000},
    ),
    "post_processor: more than 2,000 values": (
        "post_processor",
        {"type": "TemplateProcessing", "single": [PIECE] * 200_000, "pair": []},
    ),
    "stride set to 5": (
        "truncation",
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5},
    ),
}


@pytest.mark.parametrize("line", TOKENIZERS)
@pytest.mark.parametrize(("kind", "file"), [("embedded", TOKENIZER), ("janus", "tokenizer.json")])
def test_a_tokenizer_that_swells_a_text_is_not_made(
    made: dict[str, Path], tmp_path: Path, kind: str, file: str, line: str
) -> None:
    folder = Path(shutil.copytree(made[kind], tmp_path / kind))
    edited(folder, file, *TOKENIZERS[line])
    assert line in said(folder)


@pytest.mark.parametrize("kind", ["embedded", "janus", "emu3"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_named(
    made: dict[str, Path], tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    folder = Path(shutil.copytree(made[kind], tmp_path / kind))
    for path in folder.rglob("*.safetensors"):
        held = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
        save_file(held, path, {"format": "pt"})
    assert " has numbers of type " in said(folder) and ".safetensors: " in said(folder)


def test_tensors_that_their_file_does_not_hold_are_refused(
    made: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made["llamagen"], tmp_path / "llamagen"))
    path = folder / json.loads((folder / "config.json").read_text())["vq"]
    held = torch.load(path, weights_only=True)
    (tensors,) = (value for value in (held, *held.values()) if "quant_conv.bias" in value)
    for wrong in (torch.ones(1).expand(10**12), torch.empty(8, device="meta")):
        tensors["quant_conv.bias"] = wrong
        torch.save(held, path)
        assert "quant_conv.bias has numbers that the file does not hold" in said(folder)
