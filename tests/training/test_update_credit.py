"""Updates whose credit needs a pass of its own or the reference, and the passes that run for it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from toys import PROMPTS, late_tokens, tiny_model
from updates import (
    ADVANTAGES,
    CONTRAST,
    CRITICAL,
    DISTRIBUTION,
    SIZE,
    assert_close,
    gradients,
    moved,
    run_update,
    sampled,
    scored,
    settings,
    updated,
    updater,
)

from t2i_credit.credit.critical import (
    critical_mask,
    critical_tokens,
    entropy_gradient,
    group_similarity,
)
from t2i_credit.credit.entry import as_entry
from t2i_credit.credit.gcpo import contrast
from t2i_credit.credit.weights import power_rank
from t2i_credit.models.embedded_model import EmbeddedModel


def calls(model: EmbeddedModel) -> list[int]:
    """A list that grows by the number of image tokens whenever a model runs on some."""
    seen: list[int] = []
    model.image_embedding.register_forward_hook(
        lambda _, inputs, out: seen.append(inputs[0].numel())
    )
    return seen


@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_distribution_guided_credit_is_uniform_while_the_policy_is_the_reference(
    policy: str,
) -> None:
    config = settings(credit={**DISTRIBUTION, "tau": 0.05}, loss={"policy": policy})
    model = tiny_model()
    reference = copy.deepcopy(model).requires_grad_(False)
    rollout = sampled(model, config)
    update = updater(model, config, reference=reference)
    credit = update.credit_of(rollout, ADVANTAGES)
    torch.testing.assert_close(credit, torch.ones(8, 4), atol=1e-5, rtol=0)
    moved(model, 0.1)
    later = update.credit_of(rollout, ADVANTAGES)
    assert (later - 1).abs().max() > 0.05
    torch.testing.assert_close(later.mean(1), torch.ones(8), atol=1e-5, rtol=0)


def test_distribution_guided_credit_is_of_the_policy_in_its_own_form() -> None:
    model, credit = moved(tiny_model(), 0.1), {}
    reference = tiny_model().requires_grad_(False)
    for policy in ("guided", "conditional"):
        config = settings(credit={**DISTRIBUTION, "tau": 0.05}, loss={"policy": policy})
        rollout = sampled(model, config)
        found = updater(model, config, reference=reference).credit_of(rollout, ADVANTAGES)
        guided = "guided_" if policy == "guided" else ""
        condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
        statistics = model(
            condition,
            rollout.tokens,
            want=[f"{guided}hellinger", f"{guided}entropy"],
            reference=reference.reference(condition, rollout.tokens),
            cfg_scale=2.0,
            temperature=0.9,
        )
        distance, entropy = statistics.values()
        s = (distance * entropy / math.log(32)).detach()
        torch.testing.assert_close(found, 4 * (s / 0.05).softmax(1), atol=1e-4, rtol=0)
        credit[policy] = found
    assert (credit["guided"] - credit["conditional"]).abs().max() > 0.01


def test_refreshed_credit_is_that_of_the_policy_now_and_not_of_the_rollout() -> None:
    model = tiny_model()
    for refresh in (False, True):
        config = settings(credit={**CONTRAST, "refresh": refresh}, loss={"ratio_guard": None})
        rollout = sampled(tiny_model(), config)
        moved(model, 0.1)
        credit = updater(model, config).credit_of(rollout, ADVANTAGES)
        evidence = (rollout.logprobs, rollout.negative_logprobs)
        if refresh:
            evidence = [
                s.detach() for s in scored(model, rollout, config, "logprobs", "negative_logprobs")
            ]
        expected = power_rank(contrast(*evidence, rollout.mask), rollout.mask)
        torch.testing.assert_close(credit, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_refreshing_reports_how_far_the_credit_has_moved(policy: str) -> None:
    credit = {**CONTRAST, "refresh": True}
    loss = {"policy": policy, "ratio_guard": None}
    # the policy that sampled: the same credit, up to rounding
    _, same = updated(settings(credit=credit, loss=loss))
    assert 0 <= same["credit_shift"] < 1e-3
    # one that has moved since: the difference of both credits, each by hand
    config = settings(credit=credit, loss=loss)
    _, metrics = updated(config, before=moved)
    model = tiny_model()
    rollout = sampled(model, config)
    now = [
        s.detach() for s in scored(moved(model), rollout, config, "logprobs", "negative_logprobs")
    ]
    credits = [
        power_rank(contrast(*evidence, rollout.mask), rollout.mask)
        for evidence in (now, (rollout.logprobs, rollout.negative_logprobs))
    ]
    expected = (credits[0] - credits[1]).abs().mean().item()
    assert metrics["credit_shift"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01
    _, plain = updated(settings(credit=CONTRAST, loss=loss), before=moved)
    assert "credit_shift" not in plain


def test_no_gradient_runs_through_the_branch_that_only_the_credit_needs() -> None:
    # 8 samples of 3 tokens that are read: the policy's branch with gradient, the negative one without
    model = tiny_model()
    rollout = sampled(model, settings())
    seen: list[tuple[int, bool]] = []
    model.image_embedding.register_forward_hook(
        lambda _, inputs, out: seen.append((inputs[0].numel(), torch.is_grad_enabled()))
    )
    config = settings(loss={"policy": "conditional"}, credit={**CONTRAST, "refresh": True})
    run_update(updater(model, config), rollout, ADVANTAGES)
    assert seen == [(24, True), (24, False)]


def test_the_gradient_under_sequence_token_changes_with_the_credit_and_under_sequence_cannot() -> (
    None
):
    loss = {"ratio": "sequence_token"}
    contrasted, _ = updated(settings(loss=loss, credit=CONTRAST))
    uniform, _ = updated(settings(loss=loss))
    with pytest.raises(AssertionError):
        assert_close(gradients(contrasted), gradients(uniform), 0.01)
    # at ratio 1 it is that of the token ratio
    token, _ = updated(settings(credit=CONTRAST))
    assert_close(gradients(contrasted), gradients(token), 1e-5)
    # one ratio per image: any credit of mean 1 leaves what uniform credit gives (the configuration refuses it)
    config = settings(credit=CONTRAST)
    forced = config.model_copy(
        update={"loss": config.loss.model_copy(update={"ratio": "sequence"})}
    )
    sequence, _ = updated(forced)
    assert_close(gradients(sequence), gradients(uniform), 1e-5)


@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_critical_tokens_get_the_gradient_and_the_kl_term_and_the_others_neither(
    policy: str,
) -> None:
    loss = {"policy": policy, "kl_coef": 0.5, "kl_weight": "credit"}
    config = settings(loss=loss, credit=CRITICAL)
    reference = moved(tiny_model()).requires_grad_(False)
    ours, metrics = updated(config, reference=reference)
    model = tiny_model()
    rollout = sampled(model, config)
    name = "guided_logprobs" if policy == "guided" else "logprobs"
    (logprobs,) = scored(model, rollout, config, name)
    (frozen,) = scored(reference, rollout, config, name)
    assert rollout.guided_entropy is not None
    edges = entropy_gradient(rollout.guided_entropy, (2, 2))
    alike = group_similarity(model.codebook[rollout.tokens], SIZE)
    credit = critical_tokens(edges, alike, logprobs, frozen, rollout.mask, fraction=0.25)
    chosen = critical_mask(edges, alike, rollout.mask, fraction=0.25)
    assert chosen[:, 0].all() and not chosen.all()
    difference = frozen.detach() - logprobs
    kl = difference.exp() - difference - 1
    (-ADVANTAGES[:, None] * credit * logprobs + 0.5 * chosen * kl).mean().backward()
    assert_close(gradients(ours), gradients(model), 1e-5)
    assert metrics["kl"] == pytest.approx(kl.mean().item(), rel=1e-4)


def test_the_kl_of_critical_tokens_is_measured_even_where_it_is_not_penalised() -> None:
    reference = moved(tiny_model()).requires_grad_(False)
    _, metrics = updated(settings(credit=CRITICAL), reference=reference)
    assert metrics["kl"] > 1e-4


def test_similarity_credit_compares_the_codes_of_images_that_fared_otherwise() -> None:
    config = settings(credit={"name": "similarity"})
    model = tiny_model()
    rollout = sampled(model, config)
    credit = updater(model, config).credit_of(rollout, ADVANTAGES)
    codes = torch.nn.functional.normalize(model.codebook[rollout.tokens], dim=-1)
    for b in range(8):
        other = codes[b ^ 1]  # the only other of its group, and of opposite or no advantage
        distance = (1 - (codes[b] * other).sum(-1)) / 2
        expected = distance / distance.mean() if distance.max() > 1e-6 else torch.ones(4)
        torch.testing.assert_close(credit[b], expected.detach(), rtol=0, atol=1e-5)


def test_no_reference_is_run_where_nothing_needs_it() -> None:
    reference = tiny_model()
    seen = calls(reference)
    _, metrics = updated(settings(credit=CONTRAST), reference=reference)
    assert seen == [] and "kl" not in metrics
    updated(settings(loss={"kl_coef": 0.1}), reference=reference)
    assert sum(seen) == 2 * 8 * 3  # both branches, 8 samples, 3 of 4 tokens are read


@pytest.mark.parametrize(
    ("policy", "branches"), [("guided", 2), ("conditional", 1)], ids=["guided", "conditional"]
)
def test_the_reference_runs_the_branches_that_the_policy_has(policy: str, branches: int) -> None:
    for sections in ({"loss": {"policy": policy, "kl_coef": 0.1}}, {"credit": DISTRIBUTION}):
        reference = tiny_model()
        seen = calls(reference)
        sections = {"loss": {"policy": policy}, **sections}
        updated(settings(**sections), reference=reference)
        assert sum(seen) == branches * 8 * 3


def test_a_users_function_gets_what_every_rollout_keeps_and_its_own_parameters() -> None:
    entry = as_entry(late_tokens)
    assert entry.description == "Later tokens matter."
    assert not entry.needs_reference
    assert as_entry(entry) is entry
    model = tiny_model()
    # ranks 1, 2, 3, 4 over their mean 2.5; to the power of 2: 1, 4, 9, 16 over 7.5
    for power, expected in ((1.0, [0.4, 0.8, 1.2, 1.6]), (2.0, [2 / 15, 8 / 15, 1.2, 32 / 15])):
        config = settings(credit={"name": "toys:late_tokens", "power": power})
        credit = updater(model, config).credit_of(sampled(model, config), ADVANTAGES)
        assert credit.shape == (8, 4)
        assert credit[3].tolist() == pytest.approx(expected)
