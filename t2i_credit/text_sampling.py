"""Samples completions from a causal language model of transformers. Judges none.

Token ids go in and come out as lists, one of each length; padding exists only in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Done = Callable[[int, int], None]  # rows so far, of


def unheard(done: int, of: int) -> None:
    """A `Done` that tells nobody."""


@torch.no_grad()
def continued(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int,
    batch: int = 256,
    done: Done = unheard,
) -> list[list[int]]:
    """Goes on from each row of token ids.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, with a pad token.
        rows: a prompt, or a prompt and the beginning of an answer, each.
        max_new_tokens: where an answer that does not end is cut off.
        temperature: 0 = always the likeliest token.
        seed: the same seed and batch, the same answers.
        batch: rows that are sampled together.
        done: called after each batch.

    Returns:
        The tokens that were added, with the end token if one came, without padding.
    """
    found: list[list[int]] = []
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            longest = max(map(len, part))
            fill = [longest - len(row) for row in part]
            ids = [[tokenizer.pad_token_id] * n + [*row] for n, row in zip(fill, part, strict=True)]
            mask = [[0] * n + [1] * (longest - n) for n in fill]
            tokens = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_new_tokens,
                **sampling,
            )
            found += [_ended(row, tokenizer.eos_token_id) for row in tokens[:, longest:].tolist()]
            done(len(found), len(rows))
    return found


def _ended(tokens: list[int], end: int) -> list[int]:
    """Up to the end token, which stays."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def complete(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int, **settings: Any
) -> list[str]:
    """The completion of each prompt as text, without special tokens; see `continued`."""
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    tokens = continued(model, tokenizer, rows, max_new_tokens=max_new_tokens, **settings)
    texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts
