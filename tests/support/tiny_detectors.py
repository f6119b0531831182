"""Detectors and a CLIP of a few thousand random weights, written as real checkpoints are laid out. Holds no test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
}
SIZES = {"shortest_edge": 64, "longest_edge": 96}
WORDS = ["a", "photo", "of", "cat", "dog", "computer", "mouse", "keyboard", "traffic", "light"]


def write_mask2former(folder: Path, *, labels: int = 80, only: int | None = None) -> Path:
    """A Mask2Former for instance segmentation.

    Args:
        labels: classes.
        only: the class that every query is sure to see.
    """
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=labels,
    )
    model = _seeded(lambda: Mask2FormerForUniversalSegmentation(config))
    with torch.no_grad():
        # random mask embeddings are all but 0: spread them, so that masks have an inside and an outside
        for (
            layer
        ) in model.model.transformer_module.decoder.mask_predictor.mask_embedder.parameters():
            layer.mul_(4)
        if only is not None:
            model.class_predictor.weight.zero_()
            model.class_predictor.bias.zero_()
            model.class_predictor.bias[only] = 12.0
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size=SIZES, size_divisor=32).save_pretrained(folder)
    return folder


def write_owlv2(folder: Path) -> Path:
    """An OWLv2 that looks for objects in 4 x 4 patches."""
    from transformers import (
        CLIPTokenizer,
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    vocab, merges = _byte_pairs(WORDS)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = Owlv2Config(
        text_config={
            **layers,
            "hidden_size": 16,
            "vocab_size": len(vocab),
            "bos_token_id": vocab["<|startoftext|>"],
            "eos_token_id": vocab["<|endoftext|>"],
        },
        vision_config={**layers, "hidden_size": 16, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = _seeded(lambda: Owlv2ForObjectDetection(config))
    with torch.no_grad():
        for parameter in model.class_head.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token="!", model_max_length=16)
    images = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    Owlv2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def write_grounding_dino(folder: Path) -> Path:
    """A Grounding DINO with ten queries; BERT's special tokens have their real ids."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    known = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    known |= {1012: ".", 1029: "?"} | {1030 + i: word for i, word in enumerate(WORDS)}
    vocab = {known.get(i, f"[unused{i}]"): i for i in range(1030 + len(WORDS))}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage2", "stage3", "stage4"]),
        text_config=BertConfig(
            vocab_size=len(vocab),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=10,
    )
    _seeded(lambda: GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size=SIZES)
    GroundingDinoProcessor(images, BertTokenizer(vocab=vocab)).save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """An open_clip folder (`local-dir:`), with the real vocabulary."""
    import open_clip

    sizes: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    folder.mkdir()
    model = _seeded(lambda: open_clip.CLIP(**sizes))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes}))
    return folder


def _seeded(build: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def _byte_pairs(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and merges that make a token of each word; the end token has the largest id, as CLIP has it."""
    letters = sorted({letter for word in words for letter in word})
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in words:
        front = ""
        for part in [*word[:-1], f"{word[-1]}</w>"]:
            if front:
                merges.append((front, part))
            front += part
            tokens.append(front)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges
