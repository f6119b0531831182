"""What transformers' own Emu3 draws, greedily. Holds no test."""

from __future__ import annotations

from typing import Any

import torch


def greedy_rows(emu3: Any, inputs: Any, nothing: Any, height: int, width: int) -> torch.Tensor:
    """(B, H, W + 1) ids of the vocabulary, the last of each row its line end, at guidance 3.

    Args:
        emu3: an Emu3ForConditionalGeneration.
        inputs, nothing: the prompts and the negative prompts, as its processor gives them.
        height, width: H, W.
    """
    mapping, start = emu3.vocabulary_mapping, inputs["input_ids"].shape[1]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        ended = (len(ids) - start + 1) % (width + 1) == 0
        return [mapping.eol_token_id] if ended else mapping.image_tokens

    found = emu3.generate(
        **inputs,
        max_new_tokens=height * (width + 1),
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        negative_prompt_ids=nothing["input_ids"],
        negative_prompt_attention_mask=nothing["attention_mask"],
        guidance_scale=3.0,
    )
    return found[:, start:].reshape(-1, height, width + 1)
