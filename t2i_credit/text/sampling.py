"""Samples completions from a causal language model of transformers, with what both prompts think of them. Judges none.

Token ids go in and come out as lists, one of each length; padding exists only in between. Shapes: B completions, T
tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..rollout.logprobs import entropy as entropy_of
from ..rollout.logprobs import full_kl
from ..worlds.arithmetic.chains import check, solve
from ..worlds.arithmetic.questions import read

# characters of a completion; the longest chain of four steps with every filler word has 69
LONGEST = 112

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
            ids, mask = _padded(rows[start : start + batch], tokenizer.pad_token_id)
            tokens = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                **sampling,
            )
            added = tokens[:, ids.shape[1] :].tolist()
            found += [_ended(row, tokenizer.eos_token_id) for row in added]
            done(len(found), len(rows))
    return found


def _padded(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """(B, L) int64 token ids, filled on the left, and their attention mask."""
    ids = [torch.tensor(row) for row in rows]
    ones = [torch.ones_like(row) for row in ids]
    return (
        pad_sequence(ids, True, fill, padding_side="left"),
        pad_sequence(ones, True, 0, padding_side="left"),
    )


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


@dataclass(frozen=True)
class TextSamples:
    """Completions, and what both prompts think of each token; credit assigners read them like a rollout.

    Attributes:
        prompts: B, each one repeated G times.
        group_size: G.
        rows: B prompts as token ids.
        texts: B completions.
        tokens: (B, T) int64, padded on the right.
        mask: (B, T) bool, True = of the completion, its end token among them.
        rewards: (B,) 1 where the answer is exactly right, else 0.
        logprobs, negative_logprobs, entropy, full_kl: (B, T) float32, 0 off the mask; see interfaces.Rollout.
    """

    prompts: list[str]
    group_size: int
    rows: list[list[int]]
    texts: list[str]
    tokens: Tensor
    mask: Tensor
    rewards: Tensor
    logprobs: Tensor
    negative_logprobs: Tensor
    entropy: Tensor
    full_kl: Tensor


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    negatives: Sequence[str],
    *,
    group_size: int,
    seed: int,
    batch: int = 256,
    done: Done = unheard,
) -> TextSamples:
    """G completions of each of P problems at temperature 1, under its prompt and its negative prompt.

    Args:
        model, tokenizer, seed, batch, done: see `continued`.
        prompts, negatives: P texts each.
    """
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    rows = [tokenizer(prompt)["input_ids"] for prompt in repeated]
    added = continued(
        model, tokenizer, rows, max_new_tokens=LONGEST, seed=seed, batch=batch, done=done
    )
    tokens = pad_sequence([torch.tensor(one) for one in added], True, tokenizer.pad_token_id)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(one) for one in added])[:, None]
    against = [tokenizer(text)["input_ids"] for text in negatives for _ in range(group_size)]
    texts = tokenizer.batch_decode(added, skip_special_tokens=True)
    return TextSamples(
        repeated,
        group_size,
        rows,
        texts,
        tokens,
        mask,
        rewards_of(repeated, texts),
        **_both_opinions(model, rows, against, tokens, mask, batch=batch),
    )


def rewards_of(prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    """(B,) 1 where the completion announces the right answer, else 0."""
    right = [check(text, solve(read(prompt))) for prompt, text in zip(prompts, texts, strict=True)]
    return torch.tensor(right, dtype=torch.float32)


def _both_opinions(
    model: Any,
    rows: Sequence[Sequence[int]],
    against: Sequence[Sequence[int]],
    tokens: Tensor,
    mask: Tensor,
    *,
    batch: int,
) -> dict[str, Tensor]:
    """logprobs, negative_logprobs, entropy and full_kl, each (B, T)."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        positive, negative = (
            next_logprobs(model, prompt[part], tokens[part], mask[part])
            for prompt in (rows, against)
        )
        taken = tokens[part].unsqueeze(-1)
        for name, values in {
            "logprobs": positive.gather(-1, taken).squeeze(-1),
            "negative_logprobs": negative.gather(-1, taken).squeeze(-1),
            "entropy": entropy_of(positive),
            "full_kl": full_kl(positive, negative),
        }.items():
            parts.setdefault(name, []).append(torch.where(mask[part], values, 0.0))
    return {name: torch.cat(values) for name, values in parts.items()}


@torch.no_grad()
def next_logprobs(
    model: Any, rows: Sequence[Sequence[int]], tokens: Tensor, mask: Tensor
) -> Tensor:
    """Log-probabilities of each token of the completions given all before it, (B, T, V) float32.

    They are held whole: for vocabularies of characters, not for those of large models.

    Args:
        rows: B prompts as token ids.
        tokens, mask: (B, T).
    """
    prompts, known = _padded(rows)
    attention = torch.cat([known, mask.long()], 1)
    logits = model(
        input_ids=torch.cat([prompts, tokens], 1).to(model.device),
        attention_mask=attention.to(model.device),
        position_ids=(attention.cumsum(1) - 1).clamp(min=0).to(model.device),
    ).logits
    found: Tensor = logits[:, prompts.shape[1] - 1 : -1].float().log_softmax(-1).cpu()
    return found
