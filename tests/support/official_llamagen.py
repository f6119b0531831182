"""Names and shapes of the official LlamaGen models (FoundationVision/LlamaGen), without values. Holds no test."""

from __future__ import annotations

import torch
from torch import Tensor


def official_gpt(layers: int, width: int, inner: int) -> dict[str, Tensor]:
    """Tensors without values, as the official text-to-image Transformer names and shapes them."""
    sizes = {
        "cls_embedding.uncond_embedding": (120, 2048),
        "cls_embedding.cap_proj.fc1.weight": (width, 2048),
        "cls_embedding.cap_proj.fc2.weight": (width, width),
        "tok_embeddings.weight": (16384, width),
        "norm.weight": (width,),
        "output.weight": (16384, width),
    }
    for i in range(layers):
        sizes |= {
            f"layers.{i}.attention.wqkv.weight": (3 * width, width),
            f"layers.{i}.attention.wo.weight": (width, width),
            f"layers.{i}.feed_forward.w1.weight": (inner, width),
            f"layers.{i}.feed_forward.w3.weight": (inner, width),
            f"layers.{i}.feed_forward.w2.weight": (width, inner),
            f"layers.{i}.attention_norm.weight": (width,),
            f"layers.{i}.ffn_norm.weight": (width,),
        }
    return {name: torch.empty(size, device="meta") for name, size in sizes.items()}


def official_vq() -> dict[str, Tensor]:
    """Tensors without values, as the official VQ_16 names and shapes them: 128 channels x (1, 1, 2, 2, 4), 2 blocks."""
    sizes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        sizes.update({f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)})

    def norm(name: str, channels: int) -> None:
        sizes.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    def residual(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs)
        convolution(f"{name}.conv1", inputs, outputs, 3)
        norm(f"{name}.norm2", outputs)
        convolution(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            convolution(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            convolution(f"{name}.{part}", channels, channels, 1)

    down, up = [128, 128, 256, 256, 512], [512, 256, 256, 128, 128]
    for coder, inputs, levels, blocks, step in (
        ("encoder", 128, down, 2, "downsample"),
        ("decoder", 512, up, 3, "upsample"),
    ):
        for i, outputs in enumerate(levels):
            front = f"{coder}.conv_blocks.{i}"
            for j in range(blocks):
                residual(f"{front}.res.{j}", inputs, outputs)
                inputs = outputs
                if outputs == 512:  # the coarsest level attends
                    attention(f"{front}.attn.{j}", outputs)
            if i < 4:
                convolution(f"{front}.{step}.conv", outputs, outputs, 3)
        for j, part in enumerate((residual, attention, residual)):
            part(f"{coder}.mid.{j}", *[512] * (1 if part is attention else 2))
        norm(f"{coder}.norm_out", inputs)
    convolution("encoder.conv_in", 3, 128, 3)
    convolution("encoder.conv_out", 512, 256, 3)
    convolution("decoder.conv_in", 256, 512, 3)
    convolution("decoder.conv_out", 128, 3, 3)
    convolution("quant_conv", 256, 8, 1)
    convolution("post_quant_conv", 8, 256, 1)
    sizes |= {"quantize.embedding.weight": (16384, 8), "quantize.codebook_used": (65536,)}
    return {name: torch.empty(size, device="meta") for name, size in sizes.items()}
