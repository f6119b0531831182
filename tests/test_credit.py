"""Credit: one contract for every entry of the table, then each formula by hand."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from t2i_credit.advantages import group_normalized
from t2i_credit.credit.critical import (
    critical_mask,
    critical_tokens,
    entropy_gradient,
    group_similarity,
)
from t2i_credit.credit.dgpo import distribution_guided, normalized_entropy
from t2i_credit.credit.entropy import top_entropy
from t2i_credit.credit.entry import kl_weight, token_advantages
from t2i_credit.credit.fields import GROUP_FIELDS, ROLLOUT_FIELDS, UPDATE_FIELDS, group_fields
from t2i_credit.credit.gcpo import contrast
from t2i_credit.credit.stage import opposed_similarity, similarity, similarity_kl_weight
from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.weights import (
    apply_strength,
    power_rank,
    proportional,
    softmax_shape,
    uniform,
)
from t2i_credit.errors import UserError
from t2i_credit.rollout.logprobs import hellinger

PROMPTS, GROUP_SIZE, TOKENS = 3, 4, 35  # 5 x 7 tokens
BATCH = PROMPTS * GROUP_SIZE

CASES = [
    *[(name, {}) for name in sorted(CREDIT)],
    ("uniform", {"strength": 0.3}),
    *[("guidance_contrast", {"kind": kind}) for kind in ("abs", "gain", "symmetric", "full_kl")],
    *[("guidance_contrast", {"shape": shape}) for shape in ("proportional", "softmax")],
    ("guidance_contrast", {"strength": 0.5}),
    ("top_entropy", {"guided": True, "rho": 0.1}),
    ("entropy_rank", {"guided": True, "strength": 0.5}),
    *[("visual", {"kind": kind}) for kind in ("shift", "both", "figure")],
    ("visual", {"shape": "proportional"}),
    ("distribution_guided", {"tau": 0.01, "kappa": 2.0}),
    ("critical_tokens", {"fraction": 0.3}),
    ("similarity", {"strength": 0.5}),
]
every_entry = pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)


def fields_of(seed: int = 0) -> dict[str, torch.Tensor]:
    """Every field an entry may ask for, (B, T), as a rollout and an update would give them."""
    draw = torch.Generator().manual_seed(seed)
    shape = (BATCH, TOKENS)
    return {
        "logprobs": torch.randn(shape, generator=draw) - 4,
        "negative_logprobs": torch.randn(shape, generator=draw) - 4,
        "full_kl": torch.rand(shape, generator=draw) * 3,
        "entropy": torch.rand(shape, generator=draw) * 5,
        "guided_entropy": torch.rand(shape, generator=draw) * 4,
        "code_spread": torch.rand(shape, generator=draw),
        "code_shift": torch.rand(shape, generator=draw) * 4,
        "hellinger": torch.rand(shape, generator=draw),
        "normalized_entropy": torch.rand(shape, generator=draw),
        "group_similarity": torch.rand(shape, generator=draw) * 2 - 1,
        "opposed_similarity": torch.rand(shape, generator=draw) * 2 - 1,
        "entropy_gradient": torch.rand(shape, generator=draw),
        "figure_distance": torch.rand(shape, generator=draw),
        "policy_logprobs": torch.randn(shape, generator=draw) - 4,
        "ref_logprobs": torch.randn(shape, generator=draw) - 4,
    }


def ragged_mask() -> torch.Tensor:
    """(B, T) bool: row 0 wholly False, row 1 with a single True, row 2 full, others random."""
    mask = torch.rand(BATCH, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[0], mask[1], mask[2] = False, False, True
    mask[1, 5] = True
    return mask


def advantages_of() -> torch.Tensor:
    return group_normalized(torch.randn(BATCH, generator=torch.Generator().manual_seed(2)), 4)


def assign(name, parameters, fields, mask, advantages):
    """Runs an entry on what it declares to need, and on nothing else."""
    entry = CREDIT[name]
    needed = entry.fields_needed(**parameters)
    return entry.assign({key: fields[key] for key in needed}, mask, advantages, **parameters)


@every_entry
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_credit_is_detached_finite_float32_with_row_mean_one_on_the_mask(name, parameters, dtype):
    mask = ragged_mask()
    fields = {key: value.to(dtype).requires_grad_() for key, value in fields_of().items()}
    credit = assign(name, parameters, fields, mask, advantages_of())
    assert credit.shape == mask.shape and credit.dtype == torch.float32
    assert not credit.requires_grad and credit.isfinite().all() and (credit >= 0).all()
    assert (credit[~mask] == 0).all()
    means = credit.sum(dim=1)[1:] / mask.sum(dim=1)[1:]
    torch.testing.assert_close(means, torch.ones(BATCH - 1), rtol=0, atol=1e-5)


@every_entry
def test_credit_ignores_whatever_stands_off_the_mask(name, parameters):
    mask, fields = ragged_mask(), fields_of()
    clean = assign(name, parameters, fields, mask, advantages_of())
    for junk in (math.nan, math.inf, -math.inf):
        dirty = {key: torch.where(mask, value, junk) for key, value in fields.items()}
        assert torch.equal(assign(name, parameters, dirty, mask, advantages_of()), clean)


@every_entry
def test_credit_follows_whole_groups_and_samples_within_a_group(name, parameters):
    mask, fields, advantages = ragged_mask(), fields_of(), advantages_of()
    draw = torch.Generator().manual_seed(4)
    within = [torch.randperm(GROUP_SIZE, generator=draw) for _ in range(PROMPTS)]
    order = torch.cat([g * GROUP_SIZE + within[g] for g in (2, 0, 1)])
    moved = {key: value[order] for key, value in fields.items()}
    found = assign(name, parameters, moved, mask[order], advantages[order])
    expected = assign(name, parameters, fields, mask, advantages)[order]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@every_entry
def test_credit_leaves_its_inputs_untouched(name, parameters):
    mask, fields, advantages = ragged_mask(), fields_of(), advantages_of()
    assign(name, parameters, fields, mask, advantages)
    assert torch.equal(mask, ragged_mask()) and torch.equal(advantages, advantages_of())
    for key, value in fields_of().items():
        assert torch.equal(fields[key], value), key


@every_entry
def test_no_strength_is_exactly_uniform_credit(name, parameters):
    mask, parameters = ragged_mask(), {**parameters, "strength": 0.0}
    credit = assign(name, parameters, fields_of(), mask, advantages_of())
    assert torch.equal(credit, mask.float())


@pytest.mark.parametrize(
    ("name", "parameters"), [c for c in CASES if c[0] != "critical_tokens"], ids=str
)  # critical tokens go by position, too
def test_an_image_whose_tokens_are_all_alike_gets_exactly_uniform_credit(name, parameters):
    mask = ragged_mask()
    alike = {key: torch.full((BATCH, TOKENS), 0.37) for key in fields_of()}
    credit = assign(name, parameters, alike, mask, advantages_of())
    assert torch.equal(credit, mask.float())


@pytest.mark.parametrize("name", sorted(CREDIT))
def test_an_entry_describes_itself_and_every_parameter_has_a_default(name):
    entry = CREDIT[name]
    parameters = list(inspect.signature(entry.assign).parameters.values())
    assert [p.name for p in parameters[:3]] == ["fields", "mask", "advantages"]
    for p in parameters[3:]:
        assert p.kind is p.KEYWORD_ONLY and p.default is not p.empty, p
    assert "strength" in [p.name for p in parameters]
    assert entry.fields_needed() <= ROLLOUT_FIELDS | GROUP_FIELDS | UPDATE_FIELDS
    assert entry.description and entry.paper


def test_entries_need_only_what_their_parameters_ask_for():
    contrast_entry, entropy_entry = CREDIT["guidance_contrast"], CREDIT["top_entropy"]
    assert CREDIT["uniform"].fields_needed() == frozenset()
    assert contrast_entry.fields_needed() == {"logprobs", "negative_logprobs"}
    assert contrast_entry.fields_needed(kind="full_kl") == {"full_kl"}
    assert entropy_entry.fields_needed(guided=True) == {"guided_entropy"}
    assert [name for name, entry in CREDIT.items() if entry.needs_reference] == [
        "distribution_guided",
        "critical_tokens",
    ]


def test_uniform_credit_leaves_the_broadcast_advantages_bit_for_bit():
    mask, advantages = torch.ones(BATCH, TOKENS, dtype=torch.bool), advantages_of()
    assert torch.equal(uniform(mask), torch.ones(BATCH, TOKENS))
    found = token_advantages(advantages, uniform(mask))
    assert torch.equal(found, advantages[:, None].expand(BATCH, TOKENS))


# ---- contrast ----


@pytest.mark.parametrize(
    ("kind", "at_plus_two", "at_minus_two"),
    [
        ("k3", 4.389056, 1.135335),  # e^2 - 3, and e^-2 + 1
        ("abs", 2.0, 2.0),
        ("gain", 0.0, 2.0),  # d < 0: the positive prompt made the token likelier
        ("symmetric", 2.762196, 2.762196),  # cosh 2 - 1
    ],
)
def test_contrast_of_a_difference_of_two_nats(kind, at_plus_two, at_minus_two):
    logprobs, negative = torch.tensor([[-5.0, -3.0]]), torch.tensor([[-3.0, -5.0]])
    found = contrast(logprobs, negative, torch.ones(1, 2, dtype=torch.bool), kind=kind)
    expected = torch.tensor([[at_plus_two, at_minus_two]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "bound"), [("k3", 10.0), ("symmetric", 10.0), ("abs", 20.0), ("gain", 20.0)]
)
def test_contrast_is_bounded_even_for_impossible_tokens(kind, bound):
    logprobs, negative = torch.tensor([[-math.inf, -1.0]]), torch.tensor([[-1.0, -math.inf]])
    found = contrast(logprobs, negative, torch.ones(1, 2, dtype=torch.bool), kind=kind)
    # k3 at d = -20 is e^-20 + 19, clamped too; gain is 0 where the negative prompt wins
    assert found.tolist() == [[0.0 if kind == "gain" else bound, bound]]


def test_k3_keeps_contrasts_that_float32_would_lose_beside_one():
    # k3(1e-4) = 5.00017e-9; e^d - 1 in float32 is only known to 6e-8
    found = contrast(
        torch.zeros(1, 1), torch.full((1, 1), 1e-4), torch.ones(1, 1, dtype=torch.bool)
    )
    assert found.item() == pytest.approx(5.00017e-9, rel=2e-3)


def test_contrast_of_bfloat16_logprobs_is_taken_in_float32():
    # bfloat16 steps by 1/32 between 4 and 8, so its own difference would be 5
    logprobs, negative = (torch.tensor([[x]]).bfloat16() for x in (-5.0, -0.0078125))
    found = contrast(logprobs, negative, torch.ones(1, 1, dtype=torch.bool), kind="abs")
    assert found.dtype == torch.float32 and found.item() == 4.9921875


def test_full_kl_is_taken_as_given_but_never_below_zero():
    full_kl = torch.tensor([[-1e-8, 0.5, 2.0]])
    mask = torch.tensor([[True, True, False]])
    assert contrast(None, None, mask, kind="full_kl", full_kl=full_kl).tolist() == [[0.0, 0.5, 0.0]]


def test_contrast_refuses_unknown_kinds_and_missing_inputs_in_one_line():
    zeros, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(UserError, match="k3, abs, gain, symmetric, full_kl"):
        contrast(zeros, zeros, mask, kind="kl3")
    with pytest.raises(UserError, match="full_kl"):
        contrast(zeros, zeros, mask, kind="full_kl")
    with pytest.raises(UserError, match="negative_logprobs"):
        contrast(zeros, None, mask)


# ---- power rank ----


def test_power_rank_with_half_the_tokens_holding_three_quarters_is_linear_in_rank():
    # a = ln(1/4) / ln(1/2) - 1 = 1, so w = 4 * rank / (1 + 2 + 3 + 4)
    found = power_rank(
        torch.tensor([[0.3, 0.1, 5.0, 0.2]]),
        torch.ones(1, 4, dtype=torch.bool),
        top=0.5,
        mass=0.75,
    )
    torch.testing.assert_close(found, torch.tensor([[1.2, 0.4, 1.6, 0.8]]), rtol=0, atol=1e-6)


def test_power_rank_gives_ties_their_average_rank_and_ranks_within_the_mask():
    # ranks of 3, 1, 3, 7 are 2.5, 1, 2.5, 4; the 9 does not count
    mask = torch.tensor([[True, True, False, True, True]])
    found = power_rank(torch.tensor([[3.0, 1.0, 9.0, 3.0, 7.0]]), mask, top=0.5, mass=0.75)
    expected = torch.tensor([[1.0, 0.4, 0.0, 1.0, 1.6]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_power_rank_lets_the_top_40_percent_hold_80_percent_of_the_credit():
    # a = ln 0.2 / ln 0.6 - 1 = 2.1507. For N = 576, sum (k/N)^a = N / (a + 1) + 1/2 + ... = 183.32
    # (Euler-Maclaurin), so the largest weight is 576 / 183.32 = 3.142.
    # The top 230 = 39.93% hold 1 - 0.60069^3.1507 = 0.7993, and half a step more: 0.8001.
    values = torch.randn(2, 576, generator=torch.Generator().manual_seed(0)).square()
    credit = power_rank(values, torch.ones(2, 576, dtype=torch.bool))
    ordered = credit.sort(dim=1, descending=True).values
    torch.testing.assert_close(ordered[:, 0], torch.full((2,), 3.142), rtol=0, atol=1e-3)
    share = ordered[:, :230].sum(dim=1) / 576
    torch.testing.assert_close(share, torch.full((2,), 0.800), rtol=0, atol=1.5e-3)


def test_power_rank_orders_more_tokens_than_bfloat16_could_count():
    # 4,096 distinct ranks must give 4,096 distinct weights
    values = torch.arange(4096.0)[None]
    credit = power_rank(values, torch.ones(1, 4096, dtype=torch.bool))
    assert (credit.diff(dim=1) > 0).all()
    assert credit.mean().item() == pytest.approx(1, abs=1e-5)


def test_power_rank_with_mass_equal_to_top_is_uniform_and_less_is_refused():
    values = torch.rand(2, 9, generator=torch.Generator().manual_seed(7))
    mask = torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(power_rank(values, mask, top=0.4, mass=0.4), torch.ones(2, 9))
    for top, mass in [(0.4, 0.3), (0.0, 0.5), (0.4, 1.0)]:
        with pytest.raises(UserError, match="top"):
            power_rank(values, mask, top=top, mass=mass)


def test_power_rank_refuses_a_top_that_vanishes_beside_one():
    # 1 - 1e-300 is 1 in float64, and the exponent would divide by ln 1 = 0
    with pytest.raises(UserError, match="top of at least 2e-16, got 1e-300"):
        power_rank(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), top=1e-300)


# ---- the other shapes ----


def test_proportional_credit_is_contrast_over_its_mean():
    # mean over the mask is (1 + 2 + 9) / 3 = 4
    mask = torch.tensor([[True, True, False, True]])
    found = proportional(torch.tensor([[1.0, 2.0, 100.0, 9.0]]), mask)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.5, 0.0, 2.25]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_proportional_credit_does_not_depend_on_the_size_of_the_contrast(size):
    found = proportional(torch.tensor([[1.0, 3.0]]) * size, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5]]), rtol=0, atol=1e-5)


def test_rows_without_contrast_are_uniform_and_do_not_touch_their_neighbours():
    values = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    for shape in (power_rank, proportional, softmax_shape):
        credit = shape(values, mask)
        assert torch.equal(credit[0], torch.ones(3))
        assert credit[1, 0] < credit[1, 1] < credit[1, 2]


def test_softmax_shape_works_on_contrast_over_the_rows_largest():
    # c / max c = 0, 1/2, 1 at temperature 1/2: e^0, e^1, e^2 = 1, 2.718282, 7.389056, sum 11.107338
    found = softmax_shape(
        torch.tensor([[0.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool), temperature=0.5
    )
    expected = torch.tensor([[0.270092, 0.734185, 1.995723]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    with pytest.raises(UserError, match="temperature"):
        softmax_shape(torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool), temperature=0)


def test_distribution_guided_credit_is_a_softmax_of_distance_times_entropy():
    # s = 0.5 * 1, 1 * 0.5, 0.5 * 0 = 0.5, 0.5, 0; s / tau = 1, 1, 0; 3 e / (2 e + 1) = 1.266956
    found = distribution_guided(
        torch.tensor([[0.5, 1.0, 0.5]]),
        torch.tensor([[1.0, 0.5, 0.0]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    expected = torch.tensor([[1.266956, 1.266956, 0.466087]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_distribution_guided_credit_is_uniform_while_the_policy_is_the_reference():
    logits = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(5)) * 4
    distance = hellinger(logits, logits.clone())
    assert torch.equal(distance, torch.zeros(2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    credit = distribution_guided(distance, normalized_entropy(logits), mask)
    assert torch.equal(credit, torch.ones(2, 6))


def test_a_policy_near_its_reference_keeps_distribution_guided_weights_within_two_percent():
    # s / tau <= 0.01 / 0.5 = 0.02, and e^0.02 = 1.0202
    draw = torch.Generator().manual_seed(6)
    distance = torch.rand(3, 40, generator=draw) * 0.01
    undecided = torch.rand(3, 40, generator=draw)
    credit = distribution_guided(distance, undecided, torch.ones(3, 40, dtype=torch.bool))
    assert 1 < credit.max() < 1.0203 and credit.min() > 0.98


def test_top_entropy_takes_its_quantile_per_row():
    # 10 tokens, rho = 0.2: the two largest of each row get 10 / 2 = 5, however certain the row is
    entropy = torch.stack([torch.arange(10.0), torch.arange(10.0).flip(0) / 1000])
    credit = top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.2)
    assert credit[0].tolist() == [0.0] * 8 + [5.0] * 2
    assert credit[1].tolist() == [5.0] * 2 + [0.0] * 8
    with pytest.raises(UserError, match="rho"):
        top_entropy(entropy, torch.ones(2, 10, dtype=torch.bool), rho=0.0)


# ---- the samples of a group ----


def test_group_similarity_is_the_mean_cosine_over_pairs():
    # one position, three samples: cosines 1, 0, 0; a vector's length does not count
    vectors = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]], [[0.0, 2.0]]])
    found = group_similarity(torch.cat([vectors, vectors.roll(1, 0)]), 3)
    torch.testing.assert_close(found, torch.full((6, 1), 1 / 3), rtol=0, atol=1e-6)


def test_opposed_similarity_is_to_the_other_samples_with_a_product_of_advantages_not_above_zero():
    # advantages 1, -1, 0, 2: 0 and 3 are opposed to 1 and 2, 1 to 0, 2 and 3, 2 to all others
    east, north = [1.0, 0.0], [0.0, 1.0]
    vectors = torch.tensor([[east], [east], [north], [north]])
    found = opposed_similarity(vectors, torch.tensor([1.0, -1.0, 0.0, 2.0]), 4)
    expected = torch.tensor([[1 / 2], [1 / 3], [1 / 3], [1 / 2]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("field", [group_similarity, opposed_similarity])
def test_similarity_within_groups_follows_their_samples_and_no_other_group(field):
    draw = torch.Generator().manual_seed(8)
    vectors, advantages = torch.randn(BATCH, TOKENS, 5, generator=draw), advantages_of()

    def of(vectors, advantages):
        more = (advantages,) if field is opposed_similarity else ()
        return field(vectors, *more, GROUP_SIZE)

    order = torch.tensor([2, 0, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11])
    expected = of(vectors, advantages)[order]
    found = of(vectors[order], advantages[order])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    other = vectors.clone()
    other[GROUP_SIZE:] = 0
    assert torch.equal(of(other, advantages)[:GROUP_SIZE], of(vectors, advantages)[:GROUP_SIZE])


def test_similarity_credit_is_half_the_distance_over_its_mean():
    # (1 - cos) / 2 = 0, 0.25, 0.5, 1, mean 0.4375
    found = similarity(torch.tensor([[1.0, 0.5, 0.0, -1.0]]), torch.ones(1, 4, dtype=torch.bool))
    expected = torch.tensor([[0.0, 0.571429, 1.142857, 2.285714]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_images_that_are_all_the_same_get_uniform_similarity_credit():
    tokens = torch.randint(0, 32, (1, 9), generator=torch.Generator().manual_seed(9)).repeat(4, 1)
    codebook = torch.randn(32, 7, generator=torch.Generator().manual_seed(10))
    field = opposed_similarity(codebook[tokens], torch.tensor([1.0, -1.0, 1.0, -1.0]), 4)
    assert torch.equal(similarity(field, torch.ones(4, 9, dtype=torch.bool)), torch.ones(4, 9))


def test_the_kl_weight_of_similarity_credit_is_lower_on_tokens_unlike_the_opposed_ones():
    # cos + 1 = 2, 1, 0.5, 0, clamped to at most 1
    mask = torch.tensor([[True] * 4 + [False]])
    found = similarity_kl_weight(torch.tensor([[1.0, 0.0, -0.5, -1.0, 0.0]]), mask)
    assert found.tolist() == [[1.0, 1.0, 0.75, 0.5, 0.0]]


def test_entropy_gradient_is_the_slope_of_the_mean_over_earlier_neighbours():
    # entropy 0 0 6 / 0 0 0; causal means 0 0 3 (of 6 and its left) / 0 1.2 (6 above right, of five) 1.5 (of four)
    # across: 0 1.5 3 / 1.2 0.75 0.3; down, one-sided in two rows: 0 1.2 -1.5 in both
    entropy = torch.tensor([[0.0, 0.0, 6.0, 0.0, 0.0, 0.0]])
    found = entropy_gradient(entropy, (2, 3))
    expected = torch.tensor([[0.0, 1.920937, 3.354102, 1.2, 1.415097, 1.529706]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_entropy_gradient_takes_central_differences_inside_and_needs_no_second_row():
    # a single row: means of a token and its left are 0, 1, 3, 5; differences 1, 1.5, 2, 2
    found = entropy_gradient(torch.tensor([[0.0, 2.0, 4.0, 6.0]]), (1, 4))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.5, 2.0, 2.0]]), rtol=0, atol=1e-6)


def critical_fields():
    """Ten tokens: the steepest of all is the last, of those from 10% to 90% the fifth; the group differs most in the
    first and fifth, which are taken, and then in the eighth."""
    steepness, alike = torch.zeros(1, 10), torch.ones(1, 10)
    steepness[0, 9], steepness[0, 4] = 2.0, 1.0
    alike[0, 0], alike[0, 4], alike[0, 7] = -1.0, -0.9, 0.2
    return steepness, alike, torch.ones(1, 10, dtype=torch.bool)


def test_critical_tokens_are_the_first_the_steepest_inside_and_the_least_alike_of_the_rest():
    assert critical_mask(*critical_fields())[0].nonzero().flatten().tolist() == [0, 4, 7]


def test_positions_of_critical_tokens_are_counted_within_the_mask():
    steepness, alike, mask = critical_fields()
    junk = torch.full((1, 5), 9.0)
    steepness, alike = torch.cat([junk, steepness], 1), torch.cat([-junk, alike], 1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.bool), mask], 1)
    assert critical_mask(steepness, alike, mask)[0].nonzero().flatten().tolist() == [5, 9, 12]


def test_critical_tokens_are_weighted_by_the_running_mean_of_the_clamped_ratio():
    # ratio e^0.5 (of e^1) at the first token, 1 after it: running mean 1.648721, (e^0.5 + 4) / 5 = 1.129744 at the
    # fifth, (e^0.5 + 7) / 8 = 1.081090 at the eighth; over their sum 3.859556, times 10
    steepness, alike, mask = critical_fields()
    ref = torch.full((1, 10), -3.0)
    policy = ref.clone()
    policy[0, 0] += 1
    found = critical_tokens(steepness, alike, policy, ref, mask)
    expected = torch.zeros(1, 10)
    expected[0, [0, 4, 7]] = torch.tensor([4.271790, 2.927136, 2.801073])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_kl_weight_of_critical_tokens_is_one_on_them_and_zero_elsewhere():
    steepness, alike, mask = critical_fields()
    fields = {"entropy_gradient": steepness, "group_similarity": alike}
    found = CREDIT["critical_tokens"].kl_weights(fields, torch.rand(1, 10), mask, {"fraction": 0.1})
    assert found.tolist() == [[1.0, 0, 0, 0, 1.0, 0, 0, 1.0, 0, 0]]


def test_too_few_tokens_for_a_fraction_are_all_critical_and_too_large_a_fraction_is_refused():
    steepness, alike, mask = critical_fields()
    assert torch.equal(critical_mask(steepness, alike, mask, fraction=0.09), mask)
    for fraction in (0.0, 0.31):
        with pytest.raises(UserError, match="fraction"):
            critical_mask(steepness, alike, mask, fraction=fraction)


def test_group_fields_look_the_codes_up_and_compute_only_what_is_asked_for():
    tokens = torch.tensor([[0, 1], [0, 2]])
    codebook = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 0.0]])
    known = {"tokens": tokens, "codebook": codebook, "grid": (1, 2), "group_size": 2}
    found = group_fields(["group_similarity"], **known, advantages=torch.tensor([1.0, -1.0]))
    assert list(found) == ["group_similarity"]
    assert found["group_similarity"].tolist() == [[1.0, 0.0], [1.0, 0.0]]


# ---- knobs ----


def test_strength_moves_credit_from_uniform_to_itself_in_a_straight_line():
    mask = torch.tensor([[True, True, False]])
    credit = torch.tensor([[0.5, 1.5, 0.0]])
    assert torch.equal(apply_strength(credit, mask, 1.0), credit)
    # 1 + 0.25 * (+-0.5)
    assert apply_strength(credit, mask, 0.25).tolist() == [[0.875, 1.125, 0.0]]
    with pytest.raises(UserError, match="strength"):
        apply_strength(credit, mask, 1.5)


def test_kl_weight_halves_the_penalty_from_credit_one_upwards():
    # 2 - 2w = 2, 1, 0.5, 0, -4 for w = 0, 0.5, 0.75, 1, 3
    credit = torch.tensor([[0.0, 0.5, 0.75, 1.0, 3.0, 0.0]])
    mask = torch.tensor([[True] * 5 + [False]])
    assert kl_weight(credit, mask).tolist() == [[1.0, 1.0, 0.75, 0.5, 0.5, 0.0]]


# ---- distances and entropies ----


def test_squared_hellinger_distance_of_two_coins():
    # p = 1/2, 1/2 and q = 0.9, 0.1: 1 - sqrt(0.45) - sqrt(0.05) = 1 - 0.670820 - 0.223607
    p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.9, 0.1]]]).log()
    assert hellinger(p + 3, q - 2).item() == pytest.approx(0.105573, abs=1e-6)


def test_squared_hellinger_distance_of_disjoint_distributions_is_one():
    p, q = torch.tensor([[[0.0, -math.inf]]]), torch.tensor([[[-math.inf, 0.0]]])
    assert hellinger(p, q).item() == 1.0


def test_small_hellinger_distances_do_not_cancel():
    # q tilts p = 1/2, 1/2 by 1e-4: h = e^2 / 8 + O(e^4) for q = (1 +- 1e-4) / 2, 1.25e-9
    q = torch.tensor([[[0.5 * (1 + 1e-4), 0.5 * (1 - 1e-4)]]], dtype=torch.float64).log()
    assert hellinger(torch.zeros(1, 1, 2), q.float()).item() == pytest.approx(1.25e-9, rel=2e-2)


def test_normalized_entropy_is_one_for_flat_and_zero_for_certain_logits():
    flat, certain = torch.zeros(1, 64), torch.tensor([[0.0] + [-math.inf] * 63])
    assert normalized_entropy(flat).item() == pytest.approx(1, abs=1e-6)
    assert normalized_entropy(certain).item() == 0
    # two of four codes equally likely: ln 2 / ln 4
    half = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    assert normalized_entropy(half).item() == pytest.approx(0.5, abs=1e-6)
