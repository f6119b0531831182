"""Sampling: what depends on the seed alone, what is kept of every token, and what truncation does. Needs no weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import TopKLogitsWarper, TopPLogitsWarper

from t2i_credit.errors import ModelError, UserError
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer
from t2i_credit.rollout.sampling import derive_seed, draw, sample_rollout, sampling_noise, truncate

V = 24
WORDS = ["a", "photo", "of", "red", "blue", "circle", "square", "left"]
SHORT, LONG = Prompt("a red circle"), Prompt("a photo of a blue square left of a red circle")
MIDDLE = Prompt("a blue square", negative="a red circle")
# With a negative given as text, as the null prompt and as the empty text; three lengths.
PROMPTS = (SHORT, MIDDLE, Prompt("a photo of a square left of a circle", negative=""))
STORED = ("logprobs", "negative_logprobs", "guided_logprobs")


@dataclass(frozen=True)
class WideConfig(EmbeddedConfig):
    """Two rows of three tokens."""

    @property
    def grid(self) -> tuple[int, int]:
        return 2, 3


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    """Random weights on a grid of 2 x 3, with a head that is large enough for prompts and guidance to matter."""
    torch.manual_seed(0)
    config = WideConfig(
        vq_channels=(8, 16), code_dim=4, codebook_size=V, hidden_size=32, layers=2, heads=2
    )
    made = EmbeddedModel(config, build_text_tokenizer(WORDS)).eval()
    with torch.no_grad():
        made.image_head.weight.mul_(15)
        made.language_model.get_input_embeddings().weight.mul_(10)
    return made


def sampled(model: Any, prompts: tuple[Prompt, ...] = PROMPTS, **changed: Any) -> Rollout:
    settings = {"group_size": 3, "cfg_scale": 2.5, "temperature": 0.9, "seed": 7, "full_kl": True}
    return sample_rollout(model, prompts, **{**settings, **changed})


def conditioned(model: EmbeddedModel, prompts: tuple[Prompt, ...]) -> Any:
    return model.condition([p.text for p in prompts], [p.negative for p in prompts])


def tables(model: EmbeddedModel, prompt: Prompt, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(T, V) log-probs of every code after the prefix of one sample (T,), both branches, without any cache: code v
    is put at position t and scored by the training pass, which knows nothing of decoding."""
    length = len(tokens)
    grids = tokens.repeat(length, V, 1)  # (T, V, T)
    for t in range(length):
        grids[t, :, t] = torch.arange(V)
    condition = conditioned(model, (prompt,))
    with torch.no_grad():
        want = ["logprobs", "negative_logprobs"]
        scored = model(condition, grids.flatten(0, 1), want=want)
    columns = [scored[name].reshape(length, V, length) for name in want]
    at = torch.arange(length)
    return columns[0][at, :, at], columns[1][at, :, at]


class Uncached:
    """The same model behind the decoding contract, but every step starts again from the prompt."""

    def __init__(self, model: EmbeddedModel) -> None:
        self.model, self.grid, self.device = model, model.grid, model.device
        self.condition, self.decode = model.condition, model.decode

    def prefill(self, condition: Any) -> Any:
        return condition

    def expand(self, condition: Any, group_size: int) -> dict[str, Any]:
        each = torch.arange(condition.prompts).repeat_interleave(group_size)
        return {"condition": condition.select(each), "tokens": torch.empty(len(each), 0).long()}

    def advance(self, state: dict[str, Any], tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probs serve as logits: the two differ by a constant per row, which no step of sampling sees."""
        if tokens is not None:
            state["tokens"] = torch.cat([state["tokens"], tokens[:, None]], 1)
        prefix = state["tokens"]
        t, rows = prefix.shape[1], len(prefix)
        grids = torch.zeros(rows, V, self.grid[0] * self.grid[1], dtype=torch.long)
        grids[:, :, :t] = prefix[:, None]
        grids[:, :, t] = torch.arange(V)
        want = ["logprobs", "negative_logprobs"]
        scored = self.model(state["condition"], grids.flatten(0, 1), want=want)
        positive, negative = (scored[name][:, t].reshape(rows, V) for name in want)
        return positive, negative


# Seeds and noise --------------------------------------------------------------------------------------------------


def test_a_row_of_noise_depends_on_the_seed_and_the_sample_only() -> None:
    whole = sampling_noise(5, 0, 6, 7)
    assert torch.equal(sampling_noise(5, 3, 2, 7), whole[3:5])
    assert torch.equal(sampling_noise(5, 4, 1, 3), whole[4:5, :3])  # a longer image: same beginning
    assert len({tuple(row) for row in whole.tolist()}) == 6
    assert not torch.equal(sampling_noise(6, 0, 6, 7), whole)


def test_noise_is_uniform_in_the_unit_interval() -> None:
    # 20,000 numbers: the mean is 1/2 within 5 standard errors, 5 sqrt(1/12 / 20000) = 0.0102
    noise = sampling_noise(derive_seed(1, 2, 3), 0, 200, 100)
    assert noise.dtype == torch.float64
    assert noise.min() >= 0 and noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.0102


def test_derived_seeds_are_valid_and_differ_by_every_part_of_their_key() -> None:
    keys = [(purpose, seed, step) for purpose in (1, 2) for seed in range(5) for step in range(5)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 0, 4) == derive_seed(1, 0, 4)


# Drawing ----------------------------------------------------------------------------------------------------------


def test_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.4, 0.05, 0.0, 0.25, 0.3, 0.0])
    noise = sampling_noise(11, 0, 8000, 1)[:, 0]
    counts = torch.bincount(draw(p.log().repeat(8000, 1), noise), minlength=6)
    expected = 8000 * p
    assert counts[2] == counts[5] == 0
    # chi square with 4 - 1 = 3 degrees of freedom lies below 16.27 with probability 0.999
    possible = p > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 16.27


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.75, 1 - 2**-53])
def test_a_code_of_probability_zero_is_never_drawn(noise: float) -> None:
    # 0.25 and 0.75 fall exactly on a step of the cumulative probability, where the zeros stand
    p = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.0, 0.25, 0.0]])
    code = draw(p.log(), torch.tensor([noise], dtype=torch.float64))
    assert p[0, code] > 0


def test_the_drawn_code_is_where_the_cumulative_probability_passes_the_noise() -> None:
    # cumulative: 0.5, 0.75, 1; a noise of exactly 0.5 has left the first code
    logprobs = torch.tensor([0.5, 0.25, 0.25]).log().repeat(4, 1)
    noise = torch.tensor([0.0, 0.49, 0.5, 0.8], dtype=torch.float64)
    assert draw(logprobs, noise).tolist() == [0, 0, 1, 2]


# Truncation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (1, 1.0, [1, 0, 0, 0]),
        (2, 1.0, [0.625, 0.375, 0, 0]),  # 0.5 / 0.8, 0.3 / 0.8
        (9, 1.0, [0.5, 0.3, 0.15, 0.05]),  # more than there are codes
        (0, 0.7, [0.625, 0.375, 0, 0]),  # 0.5 is less than 0.7, 0.5 + 0.3 is enough
        (0, 0.01, [1, 0, 0, 0]),
        # the top two are 0.625 and 0.375 after top-k: 0.6 of that mass is reached by the first alone
        (2, 0.6, [1, 0, 0, 0]),
    ],
)
def test_truncation_keeps_the_top_k_and_then_the_smallest_set_of_mass_top_p(
    top_k: int, top_p: float, kept: list[float]
) -> None:
    # permuted, so that no order of the codes is taken for the order of their probabilities
    order = [2, 0, 3, 1]
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()[:, order] + 4.0
    found = truncate(logits, top_k, top_p).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([kept])[:, order].float())


@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (0, 0.9), (0, 0.3), (20, 0.5), (1, 0.999)])
def test_truncation_is_that_of_transformers(top_k: int, top_p: float) -> None:
    logits = 3 * torch.randn(16, 50, generator=torch.Generator().manual_seed(4))
    logits[:, 10:20] = logits[:, :1]  # ties
    ids, expected = torch.empty(16, 0, dtype=torch.long), logits
    if top_k:
        expected = TopKLogitsWarper(top_k)(ids, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(ids, expected)
    assert torch.equal(truncate(logits, top_k, top_p), expected)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.6), (5, 0.8)])
def test_truncated_sampling_logprobs_are_the_guided_ones_over_the_kept_mass(
    model: EmbeddedModel, top_k: int, top_p: float
) -> None:
    rollout = sampled(model, top_k=top_k, top_p=top_p)
    assert (rollout.sampling_logprobs >= rollout.guided_logprobs).all()
    assert (rollout.sampling_logprobs > rollout.guided_logprobs + 0.01).any()
    for b in range(0, len(rollout), 4):
        positive, negative = tables(model, rollout.prompts[b], rollout.tokens[b])
        guided = ((negative + 2.5 * (positive - negative)) / 0.9).log_softmax(-1)
        for t, token in enumerate(rollout.tokens[b].tolist()):
            p, codes = guided[t].exp().sort(descending=True)
            if top_k:
                p = p[:top_k] / p[:top_k].sum()
            count = 1 + int((p.cumsum(0) < top_p).sum()) if top_p < 1 else len(p)
            kept = codes[:count].tolist()
            assert token in kept
            # one over the kept codes: the taken one's share of their mass
            share = guided[t, token] - guided[t, kept].logsumexp(0)
            assert rollout.sampling_logprobs[b, t] == pytest.approx(share.item(), abs=1e-4)


def test_without_truncation_the_sampling_logprobs_are_the_guided_ones(model: EmbeddedModel) -> None:
    rollout = sampled(model)
    assert torch.equal(rollout.sampling_logprobs, rollout.guided_logprobs)


# What a seed decides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6, 8, 100])
def test_a_seed_gives_the_same_tokens_under_any_batch_split(
    model: EmbeddedModel, batch_size: int
) -> None:
    # groups of 3: parts of a group (1, 2), one group (3, 4), two (6, 8), everything
    whole, split = sampled(model), sampled(model, batch_size=batch_size)
    assert torch.equal(split.tokens, whole.tokens)
    assert split.prompts == whole.prompts
    for name in (*STORED, "entropy", "full_kl"):
        torch.testing.assert_close(
            getattr(split, name), getattr(whole, name), atol=1e-5, rtol=0, msg=name
        )
    torch.testing.assert_close(split.images, whole.images, atol=1e-5, rtol=0)


def test_calls_for_parts_of_a_batch_add_up_to_the_batch(model: EmbeddedModel) -> None:
    whole = sampled(model)
    parts = [sampled(model, (p,), first_sample=3 * i) for i, p in enumerate(PROMPTS)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)


def test_samples_of_one_prompt_and_of_two_seeds_differ(model: EmbeddedModel) -> None:
    first, second = sampled(model), sampled(model, seed=8)
    assert len({tuple(row) for row in first.tokens.tolist()}) == len(first)
    assert not torch.equal(first.tokens, second.tokens)


def test_sampling_leaves_the_global_random_state_alone(model: EmbeddedModel) -> None:
    before = torch.get_rng_state()
    sampled(model)
    assert torch.equal(torch.get_rng_state(), before)


# What is kept of a token ------------------------------------------------------------------------------------------


def test_stored_logprobs_equal_those_of_a_training_pass(model: EmbeddedModel) -> None:
    rollout = sampled(model, guided_entropy=True)
    names = [*STORED, "entropy", "guided_entropy", "full_kl"]
    with torch.no_grad():
        scored = model(
            conditioned(model, PROMPTS), rollout.tokens, want=names, cfg_scale=2.5, temperature=0.9
        )
    for name in names:
        kept = getattr(rollout, name)
        assert kept.dtype == torch.float32
        torch.testing.assert_close(kept, scored[name], atol=1e-5, rtol=0, msg=name)
    # the branches differ, so none of the above holds by accident
    assert (rollout.logprobs - rollout.negative_logprobs).abs().max() > 0.1
    assert (rollout.logprobs - rollout.guided_logprobs).abs().max() > 0.1


def test_a_longer_prompt_in_the_batch_leaves_the_others_as_they_are(model: EmbeddedModel) -> None:
    alone, joined = sampled(model, (SHORT, MIDDLE)), sampled(model, (SHORT, MIDDLE, LONG))
    assert torch.equal(joined.tokens[:6], alone.tokens)
    for name in (*STORED, "entropy", "full_kl"):
        torch.testing.assert_close(
            getattr(joined, name)[:6], getattr(alone, name), atol=1e-5, rtol=0, msg=name
        )


def test_a_longer_negative_in_the_batch_leaves_the_others_as_they_are(model: EmbeddedModel) -> None:
    alone = sampled(model, (SHORT,))
    joined = sampled(model, (SHORT, Prompt("a circle", negative=LONG.text)))
    assert torch.equal(joined.tokens[:3], alone.tokens)
    for name in STORED:
        torch.testing.assert_close(
            getattr(joined, name)[:3], getattr(alone, name), atol=1e-5, rtol=0, msg=name
        )


def test_cached_sampling_equals_uncached_sampling(model: EmbeddedModel) -> None:
    cached, uncached = sampled(model), sampled(Uncached(model))
    assert torch.equal(cached.tokens, uncached.tokens)
    for name in (*STORED, "entropy", "full_kl"):
        torch.testing.assert_close(
            getattr(cached, name), getattr(uncached, name), atol=1e-5, rtol=0, msg=name
        )


def test_full_kl_is_the_exact_divergence_of_the_two_branches(model: EmbeddedModel) -> None:
    rollout = sampled(model)
    assert rollout.full_kl is not None
    for b in (0, 4, 8):  # one sample of each prompt
        positive, negative = tables(model, rollout.prompts[b], rollout.tokens[b])
        direct = (positive.exp() * (positive - negative)).sum(-1)
        torch.testing.assert_close(rollout.full_kl[b], direct, atol=1e-5, rtol=0)
    assert rollout.full_kl.min() >= -1e-6
    assert rollout.full_kl.max() > 0.01
    assert sampled(model, full_kl=False).full_kl is None


def test_the_null_prompt_and_the_empty_text_are_two_negatives(model: EmbeddedModel) -> None:
    null, empty = (sampled(model, (Prompt(LONG.text, negative=n),)) for n in (None, ""))
    assert null.negative_logprobs is not None and empty.negative_logprobs is not None
    for rollout in (null, empty):
        for t, name in enumerate(("positive", "negative")):
            table = tables(model, rollout.prompts[0], rollout.tokens[0])[t]
            kept = (rollout.logprobs, rollout.negative_logprobs)[t]
            taken = table.gather(1, rollout.tokens[0][:, None])[:, 0]
            torch.testing.assert_close(kept[0], taken, atol=1e-5, rtol=0, msg=name)
    # before the first token nothing but the negative prompt can tell the two apart
    first = [tables(model, r.prompts[0], r.tokens[0])[1][0] for r in (null, empty)]
    assert (first[0] - first[1]).abs().max() > 0.01


# Guidance scale 1 -------------------------------------------------------------------------------------------------


def test_without_guidance_the_negative_branch_changes_nothing_and_can_be_dropped(
    model: EmbeddedModel,
) -> None:
    settings = {"cfg_scale": 1.0, "temperature": 1.0, "full_kl": False}
    with_branch = sampled(model, **settings)
    without = sampled(model, **settings, negative_branch=False)
    assert torch.equal(without.tokens, with_branch.tokens)
    assert without.negative_logprobs is None and without.full_kl is None
    assert with_branch.negative_logprobs is not None
    for rollout in (with_branch, without):
        torch.testing.assert_close(rollout.guided_logprobs, rollout.logprobs, atol=1e-6, rtol=0)
    torch.testing.assert_close(without.logprobs, with_branch.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("needs", [{"cfg_scale": 2.0}, {"full_kl": True}])
def test_the_negative_branch_stays_where_something_needs_it(
    model: EmbeddedModel, needs: dict[str, Any]
) -> None:
    settings = {"cfg_scale": 1.0, "full_kl": False, **needs}
    assert sampled(model, **settings, negative_branch=False).negative_logprobs is not None


# The rollout ------------------------------------------------------------------------------------------------------


def test_a_rollout_has_a_row_per_sample_on_a_grid_that_is_not_square(model: EmbeddedModel) -> None:
    rollout = sampled(model)
    assert rollout.prompts == [p for p in PROMPTS for _ in range(3)]
    assert rollout.tokens.shape == rollout.mask.shape == rollout.logprobs.shape == (9, 6)
    assert rollout.tokens.dtype == torch.int64
    assert rollout.tokens.min() >= 0 and rollout.tokens.max() < V
    assert rollout.mask.all() and not rollout.gold.any()
    # 2 rows and 3 columns of tokens of 8 x 8 pixels
    assert rollout.images.shape == (9, 3, 16, 24)
    torch.testing.assert_close(rollout.images, model.decode(rollout.tokens), atol=1e-5, rtol=0)
    assert rollout.guided_entropy is None
    assert not any(t.requires_grad for t in (rollout.logprobs, rollout.guided_logprobs))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"prompts": ()}, "prompts: empty"),
        ({"group_size": 0}, "group_size: 0"),
        ({"cfg_scale": 0.5}, "cfg_scale: 0.5"),
        ({"cfg_scale": float("nan")}, "cfg_scale: nan"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"top_k": -1}, "top_k: -1"),
        ({"top_p": 0.0}, "top_p: 0.0"),
        ({"top_p": 1.5}, "top_p: 1.5"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_a_setting_out_of_range_and_broken_weights_are_refused(
    model: EmbeddedModel, wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named) as caught:
        sampled(model, **wrong)
    assert "\n" not in str(caught.value)
    broken = copy.deepcopy(model)
    broken.image_head.weight.data.fill_(3e38)
    with pytest.raises(ModelError, match="predictions are not numbers"):
        sampled(broken)
