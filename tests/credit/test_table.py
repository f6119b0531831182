"""Credit: one contract for every entry of the table."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from credit_batch import BATCH, GROUP_SIZE, PROMPTS, TOKENS, advantages_of

from t2i_credit.credit.entry import token_advantages
from t2i_credit.credit.fields import GROUP_FIELDS, ROLLOUT_FIELDS, UPDATE_FIELDS
from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.weights import uniform

CASES = [
    *[(name, {}) for name in sorted(CREDIT)],
    ("uniform", {"strength": 0.3}),
    *[("guidance_contrast", {"kind": kind}) for kind in ("abs", "gain", "symmetric", "full_kl")],
    *[("guidance_contrast", {"shape": shape}) for shape in ("proportional", "softmax")],
    ("guidance_contrast", {"strength": 0.5}),
    ("top_entropy", {"guided": True, "rho": 0.1}),
    ("entropy_rank", {"guided": True, "strength": 0.5}),
    ("entropy_guided", {"direction": "advantage", "excluded": 0.0}),
    *[("visual", {"kind": kind}) for kind in ("shift", "both", "figure")],
    ("visual", {"shape": "proportional"}),
    ("distribution_guided", {"tau": 0.01, "kappa": 2.0}),
    ("critical_tokens", {"fraction": 0.3}),
    ("similarity", {"strength": 0.5}),
    ("value", {"change": 1.0, "guided": True}),
    ("reward_map", {"kind": "signed"}),
    ("reward_map", {"strength": 0.5}),
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
        "value_advantage": torch.randn(shape, generator=draw),
        "reward_map": torch.randn(shape, generator=draw),
        "policy_logprobs": torch.randn(shape, generator=draw) - 4,
        "ref_logprobs": torch.randn(shape, generator=draw) - 4,
    }


def ragged_mask() -> torch.Tensor:
    """(B, T) bool: row 0 wholly False, row 1 with a single True, row 2 full, others random."""
    mask = torch.rand(BATCH, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[0], mask[1], mask[2] = False, False, True
    mask[1, 5] = True
    return mask


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
