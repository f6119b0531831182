"""The likeliest other codes: which they are, that sampling does not see them, and what the picture would show with them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from toys import PROMPTS, WideConfig, tiny_model

from t2i_credit import load_model
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.rollout.alternatives import likeliest_others, swapped_pictures
from t2i_credit.rollout.sampling import sample_rollout

SCALE, TEMPERATURE = 2.5, 0.9
HOW: dict[str, Any] = {
    "group_size": 3,
    "cfg_scale": SCALE,
    "temperature": TEMPERATURE,
    "seed": 7,
}


def guided_table(model: Any, prompt: Prompt, tokens: Tensor) -> Tensor:
    """(T, V) guided, tempered log-probs after the prefix of one sample (T,), without any cache: code v is put at position t and
    scored by the training pass."""
    length, codes = len(tokens), model.codebook_size
    grids = tokens.repeat(length, codes, 1)
    for t in range(length):
        grids[t, :, t] = torch.arange(codes)
    condition = model.condition([prompt.text], [prompt.negative])
    want = ["logprobs", "negative_logprobs"]
    with torch.no_grad():
        scored = model(condition, grids.flatten(0, 1), want=want)
    at = torch.arange(length)
    positive, negative = (scored[n].reshape(length, codes, length)[at, :, at] for n in want)
    return ((negative + SCALE * (positive - negative)) / TEMPERATURE).log_softmax(-1)


@pytest.mark.parametrize("cut", [{}, {"top_k": 4}])
def test_they_are_the_likeliest_but_the_sampled_one_under_the_guided_distribution(
    cut: dict[str, int],
) -> None:
    model = tiny_model(WideConfig)
    rollout = sample_rollout(model, PROMPTS[:3], **HOW, **cut, alternatives=5)
    assert rollout.alternatives is not None and rollout.alternative_logprobs is not None
    assert rollout.alternatives.shape == rollout.alternative_logprobs.shape == (9, 6, 5)
    for b in (0, 4, 8):
        tokens = rollout.tokens[b]
        table = guided_table(model, rollout.prompts[b], tokens)
        torch.testing.assert_close(
            table.gather(1, tokens[:, None])[:, 0], rollout.guided_logprobs[b], atol=1e-4, rtol=0
        )
        others = table.scatter(1, tokens[:, None], -torch.inf).topk(5, 1)
        assert torch.equal(rollout.alternatives[b], others.indices)
        torch.testing.assert_close(
            rollout.alternative_logprobs[b], others.values, atol=1e-4, rtol=0
        )


def test_sampling_is_the_same_to_the_bit_with_them_and_in_any_batches() -> None:
    model = tiny_model(WideConfig)
    plain, asked, parts = (
        sample_rollout(model, PROMPTS, **HOW, **more)
        for more in ({}, {"alternatives": 4}, {"alternatives": 4, "batch_size": 2})
    )
    for field in fields(Rollout):
        ours, theirs = getattr(asked, field.name), getattr(plain, field.name)
        if isinstance(theirs, Tensor):
            assert torch.equal(ours, theirs), field.name
        elif field.name.startswith("alternative"):
            assert theirs is None and isinstance(ours, Tensor)
    assert parts.alternatives is not None and asked.alternatives is not None
    assert torch.equal(parts.alternatives, asked.alternatives)


def test_there_are_at_most_all_codes_but_one() -> None:
    logprobs = torch.tensor([[0.1, 0.6, 0.3]]).log()
    codes, found = likeliest_others(logprobs, torch.tensor([1]), 8)
    assert codes.tolist() == [[2, 0]]
    assert torch.equal(found, logprobs[:, [2, 0]])


class Blurred:
    """A decoder whose pixel depends on the tokens at most two away from its own."""

    grid = (5, 7)

    def decode(self, tokens: Tensor) -> Tensor:
        """A number for each token, and of those around it, less of the farther ones; 2 x 2 pixels of each."""
        grid = (tokens.float() / 100).unflatten(1, self.grid)[:, None]
        kernel = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1])
        padded = functional.pad(grid, (2, 2, 2, 2))
        mixed = functional.conv2d(padded, (kernel[:, None] * kernel)[None, None])
        return mixed.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)


def test_each_patch_is_that_of_the_picture_with_this_code_alone_swapped() -> None:
    model, generator = Blurred(), torch.Generator().manual_seed(0)
    tokens = torch.randint(100, (3, 35), generator=generator)
    codes = torch.randint(100, (3, 35, 2), generator=generator)
    codes[2, :, 1] = -1
    found = swapped_pictures(model, tokens, codes, most=32, batch_size=2)
    assert found.shape == (3, 3, 2 * 5 * 2, 7 * 2)
    for k in range(2):
        for t in range(35):
            one = tokens.clone()
            one[:, t] = torch.where(codes[:, t, k] < 0, one[:, t], codes[:, t, k])
            row, column = divmod(t, 7)
            there = (..., slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            ours = found[:, :, 10 * k : 10 * k + 10][there]
            torch.testing.assert_close(ours, model.decode(one)[there], atol=1e-6, rtol=0)


def test_patches_are_made_smaller_than_tokens_where_they_must() -> None:
    found = swapped_pictures(Blurred(), torch.zeros(1, 35).long(), torch.ones(1, 35, 3), most=1)
    assert found.shape == (1, 3, 3 * 5, 7)


def test_what_lies_three_tokens_away_hardly_shows_in_a_patch() -> None:
    model = load_model("shapes")
    (rows, columns), prompts = model.grid, [Prompt("a photo of a red circle")]
    rollout = sample_rollout(model, prompts, group_size=4, cfg_scale=2.0, seed=1)
    codes = rollout.tokens.roll(1, 0)  # of another sample: often quite another look
    found = swapped_pictures(model, rollout.tokens, codes[..., None], most=32)
    alone, side = rollout.images.clone(), rollout.images.shape[-1] // columns
    for t in range(rows * columns):
        one = rollout.tokens.clone()
        one[:, t] = codes[:, t]
        y, x = (side * number for number in divmod(t, columns))
        there = (..., slice(y, y + side), slice(x, x + side))
        alone[there] = model.decode(one)[there]
    changed = (alone - rollout.images).abs().mean()
    assert (found - alone).abs().mean() < 0.2 * changed
