"""The policy loss: invariants first, then clip, KL and aggregation by hand."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_credit.advantages import group_normalized
from t2i_credit.credit.entry import kl_weight, token_advantages
from t2i_credit.credit.weights import power_rank, uniform
from t2i_credit.errors import UserError
from t2i_credit.losses import kl_penalty, policy_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.2}
BATCH, TOKENS = 6, 15  # 3 x 5 tokens

every_ratio = pytest.mark.parametrize("ratio", ["token", "sequence", "sequence_token"])
every_aggregate = pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full_mask() -> torch.Tensor:
    return torch.ones(BATCH, TOKENS, dtype=torch.bool)


def ragged_mask() -> torch.Tensor:
    """(B, T) bool with rows of very different length."""
    lengths = torch.tensor([1, 4, 15, 7, 12, 9])
    return torch.arange(TOKENS)[None] < lengths[:, None]


def gradient(logprobs: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    logprobs = logprobs.detach().clone().requires_grad_()
    policy_loss(logprobs, *args, **kwargs)[0].backward()
    return logprobs.grad


@every_ratio
@every_aggregate
def test_uniform_credit_is_grpo_bit_for_bit(ratio, aggregate):
    old, mask = drawn(BATCH, TOKENS, seed=0) - 3, full_mask()
    logprobs = old + 0.2 * drawn(BATCH, TOKENS, seed=1)
    advantages = group_normalized(drawn(BATCH, seed=2), 3)
    knobs = {**CLIP, "ratio": ratio, "aggregate": aggregate}
    plain = advantages[:, None].expand(BATCH, TOKENS)
    credited = token_advantages(advantages, uniform(mask))
    loss, _ = policy_loss(logprobs, old, plain, mask, **knobs)
    again, _ = policy_loss(logprobs, old, credited, mask, **knobs)
    assert loss == again
    found = gradient(logprobs, old, credited, mask, **knobs)
    assert torch.equal(found, gradient(logprobs, old, plain, mask, **knobs))


@every_aggregate
def test_at_ratio_one_the_gradient_is_the_plain_policy_gradient(aggregate):
    logprobs, advantages = drawn(BATCH, TOKENS, seed=0) - 3, drawn(BATCH, TOKENS, seed=1)
    mask = ragged_mask()
    lengths = mask.sum(dim=1, keepdim=True)
    # d/dlp of -A exp(lp - old) at lp = old is -A, divided by what the aggregation divides by
    divisor = {"token": lengths.sum(), "sequence": BATCH * lengths, "constant": BATCH * TOKENS}
    expected = -advantages * mask / divisor[aggregate]
    for ratio in ("token", "sequence_token"):
        found = gradient(
            logprobs, logprobs, advantages, mask, **CLIP, ratio=ratio, aggregate=aggregate
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_at_ratio_one_loss_is_minus_the_mean_advantage_and_nothing_is_clipped():
    logprobs, advantages = drawn(BATCH, TOKENS, seed=0), drawn(BATCH, TOKENS, seed=1)
    loss, metrics = policy_loss(logprobs, logprobs, advantages, full_mask(), **CLIP)
    assert loss.item() == pytest.approx(-advantages.mean().item(), abs=1e-6)
    assert {name: value.item() for name, value in metrics.items()} == {
        "clip_frac": 0.0,
        "approx_kl": 0.0,
        "ratio_mean": 1.0,
        "ratio_max": 1.0,
    }


@every_ratio
@every_aggregate
def test_micro_batches_with_a_denominator_add_up_to_the_whole_batch(ratio, aggregate):
    old, mask = drawn(BATCH, TOKENS, seed=0) - 3, ragged_mask()
    logprobs = old + 0.3 * drawn(BATCH, TOKENS, seed=1)
    advantages, ref = drawn(BATCH, TOKENS, seed=2), old + 0.1 * drawn(BATCH, TOKENS, seed=3)
    knobs = {**CLIP, "ratio": ratio, "aggregate": aggregate, "kl_coef": 0.5}
    whole_loss, _ = policy_loss(logprobs, old, advantages, mask, ref_logprobs=ref, **knobs)
    whole = gradient(logprobs, old, advantages, mask, ref_logprobs=ref, **knobs)
    # True positions; rows; rows x max_tokens
    denominator = {"token": mask.sum(), "sequence": BATCH, "constant": BATCH * TOKENS}[aggregate]
    losses, gradients = [], []
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        part = [x[rows] for x in (logprobs, old, advantages, mask)]
        extra = {**knobs, "ref_logprobs": ref[rows], "denominator": denominator}
        losses.append(policy_loss(*part, **extra)[0])
        gradients.append(gradient(*part, **extra))
    torch.testing.assert_close(sum(losses), whole_loss, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(gradients), whole, rtol=0, atol=1e-7)


def test_a_sequence_ratio_cancels_credit_of_row_mean_one_and_sequence_token_does_not():
    # a row's mean log ratio is about 0.05 / sqrt(15) = 0.013: no row comes near the clip
    old, mask = drawn(BATCH, TOKENS, seed=0) - 3, full_mask()
    logprobs = old + 0.05 * drawn(BATCH, TOKENS, seed=1)
    advantages = group_normalized(drawn(BATCH, seed=2), 3)
    flat = token_advantages(advantages, uniform(mask))
    shaped = token_advantages(advantages, power_rank(drawn(BATCH, TOKENS, seed=3).square(), mask))
    knobs = {**CLIP, "aggregate": "sequence"}

    cancelled = gradient(logprobs, old, shaped, mask, ratio="sequence", **knobs)
    same = gradient(logprobs, old, flat, mask, ratio="sequence", **knobs)
    torch.testing.assert_close(cancelled, same, rtol=1e-5, atol=1e-8)

    kept = gradient(logprobs, old, shaped, mask, ratio="sequence_token", **knobs)
    torch.testing.assert_close(
        gradient(logprobs, old, flat, mask, ratio="sequence_token", **knobs), same
    )
    credit = shaped / advantages[:, None]
    torch.testing.assert_close(kept, same * credit, rtol=1e-5, atol=1e-8)
    assert (kept - same).abs().max() > same.abs().max()  # credit reaches 3


@every_ratio
@every_aggregate
def test_nothing_off_the_mask_reaches_the_loss_the_metrics_or_the_gradient(ratio, aggregate):
    mask = ragged_mask()
    old = drawn(BATCH, TOKENS, seed=0) - 3
    inputs = [old + 0.3 * drawn(BATCH, TOKENS, seed=1), old, drawn(BATCH, TOKENS, seed=2)]
    knobs = {**CLIP, "ratio": ratio, "aggregate": aggregate, "kl_coef": 0.1}
    loss, metrics = policy_loss(*inputs, mask, ref_logprobs=old, kl_weights=old.abs(), **knobs)
    clean = gradient(*inputs, mask, ref_logprobs=old, kl_weights=old.abs(), **knobs)
    for junk in (math.nan, math.inf, -math.inf):
        dirty = [torch.where(mask, x, junk) for x in (*inputs, old, old.abs())]
        extra = {"ref_logprobs": dirty[3], "kl_weights": dirty[4], **knobs}
        found, found_metrics = policy_loss(*dirty[:3], mask, **extra)
        assert found == loss and found_metrics == metrics
        assert torch.equal(gradient(*dirty[:3], mask, **extra), clean)


@every_aggregate
def test_a_batch_without_any_true_position_has_loss_and_gradient_zero(aggregate):
    logprobs, mask = drawn(2, 3, seed=0).requires_grad_(), torch.zeros(2, 3, dtype=torch.bool)
    knobs = {**CLIP, "aggregate": aggregate, "ref_logprobs": torch.zeros(2, 3), "kl_coef": 1.0}
    loss, metrics = policy_loss(logprobs, torch.zeros(2, 3), torch.ones(2, 3), mask, **knobs)
    loss.backward()
    assert loss == 0 and torch.equal(logprobs.grad, torch.zeros(2, 3))
    assert all(value.isfinite() for value in metrics.values())


# ---- clip ----

# ratios 1.5 and 0.5 with advantages +1 and -1, clip 0.2 / 0.28
RATIOS = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
SIGNS = torch.tensor([[1.0, -1.0, 1.0, -1.0]])


def test_the_clip_takes_the_smaller_of_both_surrogates():
    # -min(1.5, 1.28) = -1.28; -min(-1.5, -1.28) = 1.5; -min(0.5, 0.8) = -0.5; -min(-0.5, -0.8) = 0.8
    mask = torch.ones(1, 4, dtype=torch.bool)
    for position, expected in enumerate([-1.28, 1.5, -0.5, 0.8]):
        only = torch.arange(4)[None] == position
        loss, _ = policy_loss(
            RATIOS.log(), torch.zeros(1, 4), SIGNS, mask & only, clip_low=0.2, clip_high=0.28
        )
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_clipped_tokens_get_no_gradient_and_are_the_clip_frac():
    mask = torch.ones(1, 4, dtype=torch.bool)
    knobs = {"clip_low": 0.2, "clip_high": 0.28}
    # only 1.5 with A > 0 and 0.5 with A < 0 are clipped; the others keep -A ratio / 4
    found = gradient(RATIOS.log(), torch.zeros(1, 4), SIGNS, mask, **knobs)
    expected = torch.tensor([[0.0, 0.375, -0.125, 0.0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    _, metrics = policy_loss(RATIOS.log(), torch.zeros(1, 4), SIGNS, mask, **knobs)
    assert metrics["clip_frac"] == 0.5


def test_metrics_measure_the_ratio_over_the_mask():
    # ratios 1.5 and 0.5 count, 4 does not; k3 = r - 1 - ln r: 0.5 - 0.405465 and -0.5 + 0.693147
    logprobs = torch.tensor([[1.5, 0.5, 4.0]]).log()
    mask = torch.tensor([[True, True, False]])
    _, metrics = policy_loss(logprobs, torch.zeros(1, 3), torch.ones(1, 3), mask, **CLIP)
    assert metrics["ratio_mean"].item() == pytest.approx(1.0, abs=1e-6)
    assert metrics["ratio_max"].item() == pytest.approx(1.5, abs=1e-6)
    assert metrics["approx_kl"].item() == pytest.approx((0.094535 + 0.193147) / 2, abs=1e-6)
    assert "kl" not in metrics


@pytest.mark.parametrize("ratio", ["sequence", "sequence_token"])
def test_the_sequence_ratio_is_the_exponential_of_the_masked_mean(ratio):
    # row 1: mean of 0.1 and 0.3 is 0.2; row 2: only -0.1 counts; ratios e^0.2, e^-0.1, clip wide
    logprobs = torch.tensor([[0.1, 0.3], [-0.1, 9.0]])
    mask = torch.tensor([[True, True], [True, False]])
    loss, _ = policy_loss(
        logprobs,
        torch.zeros(2, 2),
        torch.ones(2, 2),
        mask,
        clip_low=0.9,
        clip_high=0.9,
        ratio=ratio,
        aggregate="sequence",
    )
    assert loss.item() == pytest.approx(-(math.exp(0.2) + math.exp(-0.1)) / 2, abs=1e-6)


# ---- aggregation ----


def test_aggregations_divide_by_tokens_rows_or_the_constant_length():
    # at ratio 1 the loss per token is -A: row 1 is -1, -2, -3, row 2 is -10
    advantages = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    zeros = torch.zeros(2, 3)

    def loss(**knobs):
        return policy_loss(zeros, zeros, advantages, mask, **CLIP, **knobs)[0].item()

    assert loss(aggregate="token") == -4.0  # 16 / 4
    assert loss(aggregate="sequence") == -6.0  # (6 / 3 + 10) / 2
    assert loss(aggregate="constant") == pytest.approx(-16 / 6)  # 16 / (2 rows * 3)
    assert loss(aggregate="constant", max_tokens=4) == -2.0  # 16 / (2 rows * 4)


# ---- KL ----


def test_the_kl_penalty_is_k3_of_the_reference_added_per_token():
    # ref - lp = ln 2: k3 = 2 - ln 2 - 1 = 0.306853; ref - lp = -ln 2: 0.5 + ln 2 - 1 = 0.193147
    logprobs, ref = torch.zeros(1, 2), torch.tensor([[2.0, 0.5]]).log()
    mask, none = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    loss, metrics = policy_loss(
        logprobs, logprobs, none, mask, **CLIP, ref_logprobs=ref, kl_coef=0.1
    )
    assert metrics["kl"].item() == pytest.approx(0.25, abs=1e-6)
    assert loss.item() == pytest.approx(0.025, abs=1e-6)
    # weights 1 and 0.5 change the penalty, not the measured KL: 0.1 * (0.306853 + 0.096574) / 2
    weights = kl_weight(torch.tensor([[0.0, 2.0]]), mask)
    loss, metrics = policy_loss(
        logprobs, logprobs, none, mask, **CLIP, ref_logprobs=ref, kl_coef=0.1, kl_weights=weights
    )
    assert metrics["kl"].item() == pytest.approx(0.25, abs=1e-6)
    assert loss.item() == pytest.approx(0.0201713, abs=1e-6)


# w = 2, d = ln 2: 2 - ln 2 - 1; 2 ln 2 - 2 + 1; (ln 2 - ln 3 + 2 (ln 2 - ln 1.5)) / 2. Slopes in the policy's log-prob,
# which d falls with: -(w - 1), -w d, -w ln(4/3) / 2.
@pytest.mark.parametrize(
    ("form", "value", "slope"),
    [
        ("reverse", 0.3068528, -1.0),
        ("forward", 0.3862944, -1.3862944),
        ("jensen_shannon", 0.0849495, -0.2876821),
    ],
)
def test_the_kl_term_has_three_forms_and_is_measured_as_k3(form, value, slope):
    logprobs = torch.zeros(1, 1, requires_grad=True)
    ref, none = torch.tensor([[2.0]]).log(), torch.zeros(1, 1)
    loss, metrics = policy_loss(
        logprobs,
        none,
        none,
        none == 0,
        **CLIP,
        ref_logprobs=ref,
        kl_coef=1.0,
        kl_form=form,
    )
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert logprobs.grad.item() == pytest.approx(slope, abs=1e-6)
    assert metrics["kl"].item() == pytest.approx(0.3068528, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "curvature"), [("reverse", 1), ("forward", 1), ("jensen_shannon", 0.25)]
)
def test_a_divergence_is_flat_where_both_agree_never_negative_and_finite_far_away(form, curvature):
    d = torch.tensor([0.0, 0.01, -0.01, 3.0, -3.0, 1000.0, -1000.0], requires_grad=True)
    found = kl_penalty(d[:5] if form == "reverse" else d, form)
    assert found[0].item() == 0
    torch.testing.assert_close(
        found[1:3], torch.full((2,), curvature * 0.5e-4), rtol=0.02, atol=2e-7
    )
    assert (found >= 0).all() and found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), d)
    assert gradient[0].abs() < 1e-6 and gradient.isfinite().all()


def test_a_kl_coefficient_of_zero_only_measures():
    logprobs, ref = drawn(2, 3, seed=0), drawn(2, 3, seed=1)
    mask, advantages = torch.ones(2, 3, dtype=torch.bool), drawn(2, 3, seed=2)
    plain, _ = policy_loss(logprobs, logprobs, advantages, mask, **CLIP)
    loss, metrics = policy_loss(logprobs, logprobs, advantages, mask, **CLIP, ref_logprobs=ref)
    assert loss == plain and metrics["kl"] > 0


# ---- contract ----


def test_arithmetic_is_float32_and_only_logprobs_receive_a_gradient():
    logprobs, old, advantages, ref = (
        drawn(2, 3, seed=seed).bfloat16().requires_grad_() for seed in range(4)
    )
    mask = torch.ones(2, 3, dtype=torch.bool)
    loss, metrics = policy_loss(
        logprobs, old, advantages, mask, **CLIP, ref_logprobs=ref, kl_coef=0.1
    )
    loss.backward()
    assert loss.dtype == torch.float32 and logprobs.grad is not None
    assert old.grad is None and advantages.grad is None and ref.grad is None
    for name, value in metrics.items():
        assert value.shape == () and not value.requires_grad, name


def test_unknown_names_and_a_penalty_without_reference_are_refused():
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match="token, sequence, sequence_token"):
        policy_loss(x, x, x, mask, **CLIP, ratio="row")
    with pytest.raises(UserError, match="token, sequence, constant"):
        policy_loss(x, x, x, mask, **CLIP, aggregate="mean")
    with pytest.raises(UserError, match="ref_logprobs"):
        policy_loss(x, x, x, mask, **CLIP, kl_coef=0.1)
    with pytest.raises(UserError, match="kl_form"):
        policy_loss(x, x, x, mask, **CLIP, kl_coef=0.1, ref_logprobs=x, kl_form="half")


def test_advantages_per_sample_are_refused_even_when_they_would_broadcast():
    x, mask = torch.zeros(3, 3), torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(AssertionError, match=r"\(B, T\)"):
        policy_loss(x, x, torch.zeros(3), mask, **CLIP)
