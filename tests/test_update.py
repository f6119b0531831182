"""The update: its gradient is GRPO's, pieces add up to the whole, and nothing is changed once something is wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from toys import PROMPTS, late_tokens, tiny_model

from t2i_credit.config.plugins import find_plugin
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.credit.critical import (
    critical_mask,
    critical_tokens,
    entropy_gradient,
    group_similarity,
)
from t2i_credit.credit.entry import as_entry, kl_weight
from t2i_credit.credit.gcpo import contrast
from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.weights import power_rank
from t2i_credit.errors import TrainingError
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.models.embedded_model import EmbeddedModel
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.training.update import PolicyUpdate, learning_rate

SIZE = 2  # samples of each of the four prompts, on 2 x 2 tokens
ADVANTAGES = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.0, 0.0, -2.0, 2.0])
CONTRAST = {"name": "guidance_contrast"}
DISTRIBUTION = {"name": "distribution_guided"}
CRITICAL = {"name": "critical_tokens", "fraction": 0.25}  # one of four tokens of each kind


def settings(**sections: Mapping[str, Any]) -> Config:
    """A configuration with these keys changed; gradients are not clipped, so that they can be compared."""
    base: dict[str, dict[str, Any]] = {
        "rollout": {"group_size": SIZE, "cfg_scale": 2.0, "temperature": 0.9},
        "optim": {"max_grad_norm": None},
    }
    return parse_config({k: {**base.get(k, {}), **sections.get(k, {})} for k in {*base, *sections}})


def sampled(model: EmbeddedModel, config: Config, **changed: Any) -> Rollout:
    chosen = {
        "group_size": SIZE,
        "cfg_scale": config.rollout.cfg_scale,
        "temperature": config.rollout.temperature,
        "seed": 1,
        "guided_entropy": True,
    }
    return sample_rollout(model, PROMPTS, **{**chosen, **changed})


def updater(
    model: EmbeddedModel,
    config: Config,
    *,
    reference: EmbeddedModel | None = None,
    lr: float = 0.0,
) -> PolicyUpdate:
    """An update by plain gradient descent; the default rate leaves the parameters alone and the gradient behind."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return PolicyUpdate(
        config,
        model=model,
        sampler=model,
        reference=reference,
        credit=as_entry(find_plugin(config.credit.name, CREDIT, "credit.name")),
        optimizer=torch.optim.SGD(trained, lr=lr),
        accelerator=Accelerator(cpu=True),
    )


def updated(
    config: Config,
    *,
    reference: EmbeddedModel | None = None,
    lr: float = 0.0,
    advantages: Tensor = ADVANTAGES,
    before: Callable[[EmbeddedModel], None] = lambda model: None,
) -> tuple[EmbeddedModel, dict[str, float]]:
    """A model after one update on its own samples, with its last gradients, and the metrics.

    `before` may change the model between sampling and the update.
    """
    model = tiny_model()
    rollout = sampled(model, config)
    before(model)
    metrics = updater(model, config, reference=reference, lr=lr)(7, rollout, advantages)
    return model, metrics


def moved(model: EmbeddedModel, scale: float = 0.02) -> EmbeddedModel:
    """The model with all trained parameters a little elsewhere."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=scale)
    return model


def gradients(model: EmbeddedModel) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def parameters(model: EmbeddedModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Differences are measured against the largest value of all, as a step would feel them."""
    assert ours.keys() == theirs.keys() and ours
    largest = max(t.abs().max() for t in theirs.values())
    assert largest > 0
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= tolerance * largest, name


def scored(model: EmbeddedModel, rollout: Rollout, config: Config, *want: str) -> list[Tensor]:
    """(B, T) statistics of the rollout's tokens, with gradient."""
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    scale, temperature = config.rollout.cfg_scale, config.rollout.temperature
    found = model(condition, rollout.tokens, want=want, cfg_scale=scale, temperature=temperature)
    return [found[name] for name in want]


# The gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["guided", "conditional"])
@pytest.mark.parametrize("credit", [{"name": "uniform"}, {**CONTRAST, "strength": 0.0}])
def test_uniform_credit_has_the_gradient_of_grpo_bit_for_bit(
    policy: str, credit: dict[str, Any]
) -> None:
    config = settings(loss={"policy": policy}, credit=credit)
    ours, _ = updated(config)
    model = tiny_model()
    rollout = sampled(model, config)
    name = "guided_logprobs" if policy == "guided" else "logprobs"
    (logprobs,) = scored(model, rollout, config, name)
    # GRPO: -min(r A, clip(r, 0.8, 1.2) A), mean over tokens, one A for all tokens of a sample
    ratio = (logprobs - logprobs.detach()).exp()
    advantages = ADVANTAGES[:, None]
    per_token = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    (per_token.sum() / per_token.numel()).backward()
    assert_equal(gradients(ours), gradients(model))


@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_contrast_credit_weighs_each_tokens_gradient(policy: str) -> None:
    config = settings(loss={"policy": policy}, credit=CONTRAST)
    ours, metrics = updated(config)
    model = tiny_model()
    rollout = sampled(model, config)
    assert rollout.negative_logprobs is not None
    evidence = contrast(rollout.logprobs, rollout.negative_logprobs, rollout.mask)
    credit = power_rank(evidence, rollout.mask)
    assert credit.max() > 1.5
    name = "guided_logprobs" if policy == "guided" else "logprobs"
    (logprobs,) = scored(model, rollout, config, name)
    # at ratio 1 the gradient is the plain policy gradient: -A w grad log p
    (-(ADVANTAGES[:, None] * credit * logprobs).mean()).backward()
    assert_close(gradients(ours), gradients(model), 1e-5)
    assert metrics["credit_max"] == pytest.approx(credit.amax(1).mean().item(), rel=1e-6)
    uniform, _ = updated(settings(loss={"policy": policy}))
    with pytest.raises(AssertionError):
        assert_close(gradients(ours), gradients(uniform), 0.01)


def words_with_gradient(config: Config) -> set[str]:
    """Which words' embeddings an update on `a red circle` against `blue square left` would move."""
    model = tiny_model()
    prompts = [Prompt("a red circle", negative="blue square left")]
    rollout = sample_rollout(
        model, prompts, group_size=4, cfg_scale=config.rollout.cfg_scale, temperature=0.9, seed=0
    )
    config = config.model_copy(
        update={"rollout": config.rollout.model_copy(update={"group_size": 4})}
    )
    updater(model, config)(1, rollout, torch.tensor([1.0, -1.0, 0.5, -0.5]))
    grad = model.language_model.get_input_embeddings().weight.grad
    assert grad is not None
    vocabulary = model.text_tokenizer.get_vocab()
    return {w for w, i in vocabulary.items() if grad[i].abs().max() > 0 and not w.startswith("<")}


def test_the_gradient_of_the_guided_policy_flows_through_both_branches() -> None:
    positive, negative = {"a", "red", "circle"}, {"blue", "square", "left"}
    assert words_with_gradient(settings(loss={"policy": "guided"})) == positive | negative
    assert words_with_gradient(settings(loss={"policy": "conditional"})) == positive
    unguided = settings(loss={"policy": "guided"}, rollout={"cfg_scale": 1.0})
    assert words_with_gradient(unguided) == positive


@pytest.mark.parametrize("kl_weight_name", ["none", "credit"])
@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_the_kl_term_pulls_towards_the_reference_in_the_form_of_the_policy(
    policy: str, kl_weight_name: str
) -> None:
    loss = {"policy": policy, "kl_coef": 0.5, "kl_weight": kl_weight_name}
    config = settings(loss=loss, credit=CONTRAST)
    reference = moved(tiny_model()).requires_grad_(False)
    ours, metrics = updated(config, reference=reference)
    model = tiny_model()
    rollout = sampled(model, config)
    name = "guided_logprobs" if policy == "guided" else "logprobs"
    (logprobs,) = scored(model, rollout, config, name)
    (frozen,) = scored(reference, rollout, config, name)
    evidence = contrast(rollout.logprobs, rollout.negative_logprobs, rollout.mask)
    credit = power_rank(evidence, rollout.mask)
    weights = kl_weight(credit, rollout.mask) if kl_weight_name == "credit" else 1.0
    difference = frozen - logprobs
    kl = difference.exp() - difference - 1
    (-ADVANTAGES[:, None] * credit * logprobs + 0.5 * weights * kl).mean().backward()
    assert_close(gradients(ours), gradients(model), 1e-5)
    assert metrics["kl"] == pytest.approx(kl.mean().item(), rel=1e-4)
    assert metrics["kl"] > 1e-4
    assert not any(p.grad is not None for p in reference.parameters())


def test_a_reference_equal_to_the_policy_adds_no_kl_and_no_gradient() -> None:
    with_kl, metrics = updated(
        settings(loss={"kl_coef": 0.5}), reference=tiny_model().requires_grad_(False)
    )
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-9)
    without, _ = updated(settings())
    assert_close(gradients(with_kl), gradients(without), 1e-5)


# Pieces add up to the whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"loss": {"policy": "conditional", "aggregate": "sequence"}, "credit": CONTRAST},
        {"loss": {"aggregate": "constant"}, "credit": {**CONTRAST, "refresh": True}},
        {"loss": {"kl_coef": 0.3, "kl_weight": "credit"}, "credit": CONTRAST},
        {"credit": DISTRIBUTION},
        {"credit": CRITICAL, "loss": {"kl_coef": 0.3, "kl_weight": "credit"}},
        {"credit": {"name": "similarity"}, "loss": {"policy": "conditional"}},
    ],
    ids=["uniform", "conditional", "refresh", "kl", "distribution", "critical", "similarity"],
)
def test_micro_batches_add_up_to_the_whole_batch(
    sections: dict[str, dict[str, Any]], size: int
) -> None:
    reference = moved(tiny_model()).requires_grad_(False)
    whole, metrics = updated(settings(**sections), reference=reference)
    parts, again = updated(
        settings(**sections, train={"micro_batch_size": size}), reference=reference
    )
    assert_close(gradients(parts), gradients(whole), 1e-5)
    assert again.keys() == metrics.keys()
    for name, value in metrics.items():
        assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


# Ratios -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["token", "sequence", "sequence_token"])
def test_one_update_per_rollout_has_a_ratio_of_exactly_one(ratio: str) -> None:
    _, metrics = updated(settings(loss={"ratio": ratio}))
    assert metrics["ratio_mean"] == metrics["ratio_max"] == 1.0
    assert metrics["clip_frac"] == metrics["approx_kl"] == 0.0
    assert 0 <= metrics["log_ratio_mean"] <= metrics["log_ratio_max"] < 1e-5


@pytest.mark.parametrize("policy", ["guided", "conditional"])
def test_old_logprobs_are_the_stored_ones_or_those_of_one_more_pass(policy: str) -> None:
    # the model moves after sampling, and lr 0 keeps it there: a pass gives ratio 1, what was stored does not
    loss = {"policy": policy, "updates_per_rollout": 2, "ratio_guard": None}
    _, recomputed = updated(settings(loss={**loss, "old": "recompute"}), before=moved)
    assert recomputed["ratio_mean"] == recomputed["ratio_max"] == 1.0
    config = settings(loss={**loss, "old": "rollout"})
    _, stored = updated(config, before=moved)
    model = tiny_model()
    rollout = sampled(model, config)
    name = "guided_logprobs" if policy == "guided" else "logprobs"
    (logprobs,) = scored(moved(model), rollout, config, name)
    ratio = (logprobs - getattr(rollout, name)).exp()
    assert stored["ratio_mean"] == pytest.approx(ratio.mean().item(), rel=1e-5)
    assert stored["ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-5)
    assert stored["ratio_max"] > 1.01
    for metrics in (
        recomputed,
        stored,
    ):  # the agreement is measured against what was stored in any case
        assert metrics["log_ratio_max"] == pytest.approx(ratio.log().abs().max().item(), rel=1e-4)


@pytest.mark.parametrize("old", ["rollout", "recompute"])
def test_several_updates_step_again_and_again_on_the_same_samples(old: str) -> None:
    loss = {"updates_per_rollout": 3, "old": old, "clip_low": 0.02, "clip_high": 0.03}
    config = settings(loss=loss)
    ours, metrics = updated(config, lr=0.05)
    model = tiny_model()
    rollout = sampled(model, config)
    descent = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    ratios, norms = [], []
    for _ in range(3):
        descent.zero_grad()
        (logprobs,) = scored(model, rollout, config, "guided_logprobs")
        ratio = (logprobs - rollout.guided_logprobs).exp()
        advantages = ADVANTAGES[:, None]
        (-torch.min(ratio * advantages, ratio.clamp(0.98, 1.03) * advantages).mean()).backward()
        norms.append(torch.stack([g.norm() for g in gradients(model).values()]).norm())
        descent.step()
        ratios.append(ratio.detach())
    assert_close(parameters(ours), parameters(model), 1e-5)
    all_ratios = torch.stack(ratios)
    assert metrics["ratio_mean"] == pytest.approx(all_ratios.mean().item(), rel=1e-4)
    assert metrics["ratio_max"] == pytest.approx(all_ratios.max().item(), rel=1e-4)
    assert metrics["grad_norm"] == pytest.approx(torch.stack(norms).mean().item(), rel=1e-3)
    assert metrics["clip_frac"] > 0 and metrics["approx_kl"] > 0


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    free, metrics = updated(settings())
    limit = metrics["grad_norm"] / 4
    clipped, again = updated(settings(optim={"max_grad_norm": limit}))
    assert again["grad_norm"] == metrics["grad_norm"]  # the one before clipping
    quarter = {name: grad / 4 for name, grad in gradients(free).items()}
    assert_close(gradients(clipped), quarter, 1e-4)


# Guard rails ------------------------------------------------------------------------------------------------------


def refuses(config: Config, model: EmbeddedModel, rollout: Rollout, advantages: Tensor) -> str:
    """The message of an update that must leave the model as it is."""
    before = parameters(model)
    update = updater(model, config, lr=0.1)
    with pytest.raises(TrainingError) as caught:
        update(7, rollout, advantages)
    assert_equal(parameters(model), before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_the_guard_stops_before_any_update_when_sampling_and_training_disagree(
    micro_batch_size: int | None,
) -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": micro_batch_size})
    rollout = sampled(model, config)
    message = refuses(config, moved(model), rollout, ADVANTAGES)
    assert message.startswith("step 7: log-probs in training differ from those in sampling")
    assert "loss.ratio_guard allows 0.0001" in message


def test_the_guard_notices_a_single_token_in_the_last_micro_batch() -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": 3})
    rollout = sampled(model, config)
    stored = rollout.guided_logprobs.clone()
    stored[-1, -1] += 0.01
    changed = replace(rollout, guided_logprobs=stored)
    assert "by up to 0.01" in refuses(config, model, changed, ADVANTAGES)
    off = settings(loss={"ratio_guard": None})
    assert updater(model, off)(7, changed, ADVANTAGES)["log_ratio_max"] == pytest.approx(0.01, 1e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(bad: float) -> None:
    model, config = tiny_model(), settings(train={"micro_batch_size": 4})
    advantages = ADVANTAGES.clone()
    advantages[-1] = bad  # in the second micro-batch
    message = refuses(config, model, sampled(model, config), advantages)
    assert message.startswith("step 7: the loss is ")
    assert "stopped before the optimizer step" in message


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_optimizer_step(
    max_grad_norm: float | None,
) -> None:
    model, config = tiny_model(), settings(optim={"max_grad_norm": max_grad_norm})
    rollout = sampled(model, config)
    model.image_head.bias.register_hook(lambda grad: grad * math.inf)
    message = refuses(config, model, rollout, ADVANTAGES)
    assert message.startswith("step 7: the gradient is ")


# Credit that needs a pass, and the reference ----------------------------------------------------------------------


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
    updater(model, config)(1, rollout, ADVANTAGES)
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


# The learning rate ------------------------------------------------------------------------------------------------


def rates(steps: int = 5, **optim: Any) -> list[float]:
    config = settings(optim={"lr": 1.0, **optim}, train={"steps": steps})
    return [learning_rate(config, step) for step in range(1, steps + 1)]


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    assert rates() == [1.0] * 5
    # two steps up, then 1, ..., 0.1 over the last five: by a line, 0.9 / 4 a step
    line = rates(7, warmup_steps=2, schedule="linear", min_lr_fraction=0.1)
    assert line == pytest.approx([0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1])
    # 0.1 + 0.9 (1 + cos(pi k / 4)) / 2
    cosine = rates(5, schedule="cosine", min_lr_fraction=0.1)
    assert cosine == pytest.approx([1.0, 0.868198, 0.55, 0.231802, 0.1])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_of_a_single_step_uses_the_peak_rate(schedule: str) -> None:
    assert rates(1, schedule=schedule) == [1.0]
    assert rates(3, schedule=schedule, warmup_steps=3) == pytest.approx([1 / 3, 2 / 3, 1.0])
