"""The value networks: where they begin, what they see, what they leave alone."""

from __future__ import annotations

import pytest
import torch
from toys import PROMPTS, WideConfig, tiny_model

from t2i_credit.config.sections import CriticConfig, TuneConfig
from t2i_credit.errors import ConfigError
from t2i_credit.training.critic.network import ValueNetwork, require_features
from t2i_credit.training.tune import choose_trained

KINDS = ("head", "lora", "copy")
TEXTS = [prompt.text for prompt in PROMPTS]


def network_of(model, kind, **keys):
    settings = CriticConfig(kind=kind, width=16, rank=2, **keys)
    return ValueNetwork(model, settings, seed=1)


def drawn(model, group=3, seed=2):
    tokens = model.grid[0] * model.grid[1]
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(model.codebook_size, (len(TEXTS) * group, tokens), generator=draw)


def woken(network, seed=5):
    """With last layers that are no longer 0."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.1)
    return network


def said(network, model, tokens):
    with network.at_work():
        return network(model.condition(TEXTS, None), tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_at_exactly_nothing(kind):
    model = tiny_model(WideConfig)
    tokens = drawn(model)
    found = said(network_of(model, kind), model, tokens)
    assert found.shape == (12, 7) and found.dtype == torch.float32 and (found == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_depends_on_the_prompt_and_the_tokens_before_it_alone(kind):
    model = tiny_model(WideConfig)
    network, tokens = woken(network_of(model, kind)), drawn(model)
    found = said(network, model, tokens)
    other = tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % model.codebook_size
    changed = said(network, model, other)
    torch.testing.assert_close(changed[:, :5], found[:, :5], rtol=0, atol=1e-5)
    assert ((changed[:, 5:] - found[:, 5:]).abs() > 1e-6).any(1).all()
    # the last value knows the last token
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % model.codebook_size
    changed = said(network, model, other)
    torch.testing.assert_close(changed[:, :6], found[:, :6], rtol=0, atol=1e-5)
    assert ((changed[:, 6] - found[:, 6]).abs() > 1e-6).all()
    assert found[0, 0] != found[3, 0]  # of two prompts


@pytest.mark.parametrize("kind", KINDS)
def test_learning_changes_nothing_of_the_generator(kind):
    model = tiny_model(WideConfig)
    choose_trained(model, TuneConfig(lora_rank=2 if kind == "lora" else 0), seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    known, tokens = [name for name, _ in model.named_parameters()], drawn(model)
    network = woken(network_of(model, kind))
    with network.at_work():
        network(model.condition(TEXTS, None), tokens).square().sum().backward()
    trained = network.trained()
    got = {name for name, p in trained.items() if p.grad is not None and bool(p.grad.any())}
    assert {"norm.weight", "inner.weight", "outer.weight"} <= got
    if kind != "head":  # every layer of its transformer learns
        layers = [
            n
            for n in trained
            if n.startswith("adapters." if kind == "lora" else "backbone.language_model.layers")
        ]
        assert layers and set(layers) <= got
    for name, parameter in model.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name]), name
    assert [name for name, _ in model.named_parameters()] == known


def test_a_copy_shares_what_is_frozen_and_stays_where_it_began_when_the_policy_moves():
    model = tiny_model(WideConfig)
    network, tokens = woken(network_of(model, "copy")), drawn(model)
    assert network.backbone.vq.quantize.embedding.weight is model.vq.quantize.embedding.weight
    assert not any("vq" in name for name in network.trained())
    found = said(network, model, tokens)
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(said(network, model, tokens), found, rtol=0, atol=0)


def test_an_adapter_of_its_own_sees_the_base_whatever_the_policys_adapter_says():
    model = tiny_model(WideConfig)
    choose_trained(model, TuneConfig(lora_rank=2), seed=0)
    network, tokens = woken(network_of(model, "lora")), drawn(model)
    found = said(network, model, tokens)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    torch.testing.assert_close(said(network, model, tokens), found, rtol=0, atol=0)
    # and outside of its passes the policy is as it was without a critic
    plain = model(model.condition(TEXTS, None), tokens, want=["logprobs"])["logprobs"]
    del network
    again = model(model.condition(TEXTS, None), tokens, want=["logprobs"])["logprobs"]
    assert torch.equal(plain, again)
    assert not any(layer._forward_hooks for layer in model.language_model.modules())


def test_recomputed_layers_give_the_same_gradient():
    gradients = []
    for recompute in (False, True):
        model = tiny_model(WideConfig)
        choose_trained(model, TuneConfig(lora_rank=2, recompute=recompute), seed=0)
        network = woken(network_of(model, "lora"))
        with network.at_work():
            network(model.condition(TEXTS, None), drawn(model)).square().sum().backward()
        gradients.append({n: p.grad for n, p in network.trained().items() if p.grad is not None})
    plain, again = gradients
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_a_model_that_does_not_tell_features_is_refused_by_name():
    with pytest.raises(ConfigError, match="Linear has no prefix_features"):
        require_features(torch.nn.Linear(1, 1))
