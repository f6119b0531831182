"""Randomly initialised checkpoints of a few thousand weights in the layouts of the real ones. Holds no test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

WORDS = ["a", "photo", "of", "red", "blue", "circle", "square", "left", "two", "User", "Assistant"]
TEXTS = ["a red circle", "a photo of two blue square left of a red circle"]
CHAT = (
    "{% for m in messages %}User : {% for c in m['content'] %}{{ c['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}Assistant : {% endif %}"
)


def tokenizer(words: list[str], names: dict[str, str], **more: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with special tokens; `more` are those that transformers has no place for."""
    every = [*names.values(), *more.values(), *words]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(every)}, names["unk_token"]))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(":", "isolated")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, extra_special_tokens=more, **names)


def sharpen(model: Any, language_model: nn.Module, head: nn.Module) -> None:
    """Larger weights, so that prompts and guidance matter to a random model."""
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(30)
        for name, parameter in language_model.layers.named_parameters():
            if "norm" not in name:
                parameter.mul_(8)
        for parameter in head.parameters():
            parameter.mul_(10)


# Janus ------------------------------------------------------------------------------------------------------------


def tiny_janus(side: int = 4, *, codes: int = 24, tied: bool = False) -> Any:
    """JanusForConditionalGeneration and its processor: side x side tokens, 2 * side pixels a side."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"}
    words = tokenizer([*WORDS, ":"], names, **special)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.bos_token_id)]
    )
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels = JanusImageProcessor(size={"height": 2 * side, "width": 2 * side}, **scale)
    processor = JanusProcessor(pixels, words, chat_template=CHAT, num_image_tokens=side**2)
    hidden = 32
    text = {
        "model_type": "llama",
        "vocab_size": len(words),
        "hidden_size": hidden,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 2 * side,
        "patch_size": 2,
        "projection_dim": hidden,
        "num_image_tokens": side**2,
    }
    vq = {
        "embed_dim": 8,
        "num_embeddings": codes,
        "latent_channels": 32,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "projection_dim": hidden,
        "image_token_embed_dim": hidden,
    }
    config = JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=words.image_token_id,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = JanusForConditionalGeneration(config).eval()
        sharpen(model, model.model.language_model, model.model.generation_head.vision_head)
        for layer in model.model.vqmodel.modules():  # of 0.02, as a trained one's are not
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        model.model.vqmodel.quantize.embedding.weight.data.normal_()
        lengths = torch.rand(codes, 1) * 3 + 0.2  # only the direction of a code matters
        model.model.vqmodel.quantize.embedding.weight.data.mul_(lengths)
    model.generation_config = GenerationConfig(
        bos_token_id=words.bos_token_id,
        pad_token_id=words.pad_token_id,
        generation_kwargs={"boi_token_id": words.boi_token_id},
    )
    return model, processor


def write_tiny_janus(folder: Path, **sizes: Any) -> Path:
    """The folder of `tiny_janus`, its weights in several shards."""
    model, processor = tiny_janus(**sizes)
    model.save_pretrained(folder, max_shard_size="100KB")
    processor.save_pretrained(folder)
    return folder


# Emu3 -------------------------------------------------------------------------------------------------------------


def tiny_emu3(
    *, codes: int = 20, in_a_row: bool = True, ratio: str = "3:2", area: int = 384
) -> Any:
    """Emu3ForConditionalGeneration and its processor: at ratio 3:2 and 384 pixels 2 x 3 tokens, 16 x 24 pixels."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special = {
        "image_token": "<image>",
        "boi_token": "<|image start|>",
        "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>",
        "eof_token": "<|extra_201|>",
    }
    visual = [f"<|visual token {code:06d}|>" for code in range(codes)]
    if not in_a_row:
        visual = visual[::-1]
    words = tokenizer([*WORDS, "2*3", "3*3", "<|extra_200|>", *visual], names, **special)
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    processor = Emu3Processor(Emu3ImageProcessor(), words)
    processor.ratio, processor.image_area = ratio, area
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vq = {
        "codebook_size": codes,
        "embed_dim": 4,
        "latent_channels": 4,
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [3],
        "hidden_size": 32,
    }
    config = Emu3Config(text_config=text, vq_config=vq, vocabulary_map=words.get_vocab())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Emu3ForConditionalGeneration(config).eval()
        sharpen(model, model.model.text_model, model.lm_head)
        model.model.vqmodel.quantize.embedding.weight.data.normal_()
    return model, processor


def write_tiny_emu3(folder: Path, **sizes: Any) -> Path:
    """The folder of `tiny_emu3`, with its size of images."""
    model, processor = tiny_emu3(**sizes)
    model.save_pretrained(folder, max_shard_size="100KB")
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    size = {"ratio": processor.ratio, "image_area": processor.image_area}
    path.write_text(json.dumps(json.loads(path.read_text()) | size))
    return folder


# LlamaGen ---------------------------------------------------------------------------------------------------------


def write_tiny_t5(folder: Path, width: int) -> Path:
    """A T5 encoder and its tokenizer in the Hugging Face layout."""
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = tokenizer([w.lower() for w in WORDS], names)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words.eos_token_id)]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=len(words), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
        )
        T5EncoderModel(config).eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def published_llamagen(*, side: int = 3, heads: int = 2, caption: int = 12) -> Any:
    """Random tensors under the published names: GPT of 2 layers and width 32, image tokenizer of 16 codes."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 0.2) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * scale

    gpt = {
        "cls_embedding.uncond_embedding": normal(caption, 24),
        "cls_embedding.cap_proj.fc1.weight": normal(32, 24),
        "cls_embedding.cap_proj.fc2.weight": normal(32, 32),
        "tok_embeddings.weight": normal(16, 32, scale=1.0),
        "norm.weight": torch.ones(32),
        "output.weight": normal(16, 32, scale=0.5),
    }
    for i in range(2):
        front = f"layers.{i}"
        gpt |= {
            f"{front}.attention.wqkv.weight": normal(96, 32),
            f"{front}.attention.wo.weight": normal(32, 32),
            f"{front}.feed_forward.w1.weight": normal(64, 32),
            f"{front}.feed_forward.w3.weight": normal(64, 32),
            f"{front}.feed_forward.w2.weight": normal(32, 64),
            f"{front}.attention_norm.weight": torch.ones(32),
            f"{front}.ffn_norm.weight": torch.ones(32),
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vq = JanusVQVAE(
            JanusVQVAEConfig(
                embed_dim=8,
                num_embeddings=16,
                latent_channels=32,
                base_channels=32,
                channel_multiplier=[1, 2],
                num_res_blocks=1,
                num_patches=side,
            )
        )
        vq.quantize.embedding.weight.data.normal_()
    return gpt, vq


def write_tiny_llamagen_classes(folder: Path) -> Path:
    """A class-conditional model of 400 classes: the folder of `write_tiny_llamagen` without its text encoder."""
    write_tiny_llamagen(folder)
    saved = torch.load(folder / "gpt.pt", weights_only=True)["model"]
    gpt = {name: tensor for name, tensor in saved.items() if "cls_embedding" not in name}
    table = torch.randn(401, 32, generator=torch.Generator().manual_seed(1))
    gpt["cls_embedding.embedding_table.weight"] = table
    torch.save({"model": gpt}, folder / "gpt.pt")
    config = json.loads((folder / "config.json").read_text())
    del config["t5"]
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llamagen_c2i"}))
    return folder


def write_tiny_llamagen(folder: Path, *, side: int = 3, heads: int = 2) -> Path:
    """A folder with gpt.pt, vq.pt and t5/ as published, and the config.json that ours needs."""
    from t2i_credit.models.tokenizers.llamagen import published_tensors

    gpt, vq = published_llamagen(side=side, heads=heads)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": gpt}, folder / "gpt.pt")
    state = published_tensors(vq)
    state["quantize.codebook_used"] = torch.zeros(65536)
    torch.save({"model": state}, folder / "vq.pt")
    write_tiny_t5(folder / "t5", 24)
    config = {"model_type": "llamagen_t2i", "grid": side, "heads": heads}
    config |= {"gpt": "gpt.pt", "vq": "vq.pt", "t5": "t5"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
