"""What is trained, the reference that costs nothing, moving averages, micro-batches by tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import PROMPTS, recipe, tiny_model

import t2i_credit
from t2i_credit.api.parts import prepare
from t2i_credit.config.schema import parse_config
from t2i_credit.config.sections import TuneConfig
from t2i_credit.errors import ConfigError
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.tune import (
    AdapterOff,
    MovingAverage,
    adapter_layers,
    cast_parameters,
    choose_trained,
    frozen_reference,
    merge_adapter,
)

LORA = TuneConfig(lora_rank=2, lora_alpha=8.0)


def scores(model: Any) -> Tensor:
    """(2, B, T) log-probs of fixed tokens under both prompts."""
    tokens = torch.arange(16).reshape(4, 4)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    with torch.no_grad():
        found = model(condition, tokens, want=["logprobs", "negative_logprobs"])
    return torch.stack([found["logprobs"], found["negative_logprobs"]])


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def adapted(seed: int = 0, *, moved: float = 0.5) -> Any:
    """The tiny model with an adapter whose second matrices, zero at first, are `moved`."""
    model = tiny_model()
    choose_trained(model, LORA, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(moved)
    return model


# What is trained --------------------------------------------------------------------------------------------------


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained() -> None:
    model, plain = adapted(moved=0.0), tiny_model()
    assert torch.equal(scores(model), scores(plain))
    # 2 layers with 7 linear layers each, two matrices of rank 2 for each of them
    assert len(trained(model)) == 2 * 7 * 2
    assert all("lora_" in name for name in trained(model))
    assert not any(module.training for module in model.modules())


def test_the_seed_decides_the_adapters_first_weights() -> None:
    first, same, other = (
        next(p for n, p in adapted(seed).named_parameters() if "lora_A" in n) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_targets_choose_the_layers_that_get_an_adapter() -> None:
    model = tiny_model()
    choose_trained(model, TuneConfig(lora_rank=2, lora_targets=("q_proj", "v_proj")), seed=0)
    assert {name.split(".")[-4] for name in trained(model)} == {"q_proj", "v_proj"}


def test_targets_that_match_nothing_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_trained(tiny_model(), TuneConfig(lora_rank=2, lora_targets=("qproj",)), seed=0)
    assert str(caught.value) == (
        "tune.lora_targets: nothing called 'qproj' is a linear layer of the transformer; "
        "the nearest names are q_proj, v_proj, o_proj"
    )


def test_modules_choose_the_weights_that_are_trained() -> None:
    model = tiny_model()
    choose_trained(model, TuneConfig(modules=("image_head", "layers.1")), seed=0)
    parts = {name.rpartition(".layers.")[2].split(".")[0] for name in trained(model)}
    assert parts == {"image_head", "1"}


def test_modules_that_match_nothing_or_are_frozen_are_refused() -> None:
    for name, near in (("image_haed", "image_head"), ("vq", "")):
        with pytest.raises(ConfigError, match=r"tune\.modules: nothing called") as caught:
            choose_trained(tiny_model(), TuneConfig(modules=(name,)), seed=0)
        assert near in str(caught.value)


@pytest.mark.parametrize(
    ("tune", "key"),
    [
        ({"lora_rank": 2, "modules": ["image_head"]}, "tune.modules: is refused with"),
        ({"lora_targets": ["q_proj"]}, "tune.lora_targets: is refused with tune.lora_rank 0"),
        ({"modules": []}, "tune.modules: value [] is not allowed; null takes all"),
        ({"lora_rnk": 2}, "tune.lora_rnk: unknown key; did you mean tune.lora_rank?"),
        ({"ema": 1.0}, "tune.ema: value 1.0 is not allowed"),
    ],
)
def test_settings_that_make_no_sense_are_named(tune: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"tune": tune})
    assert str(caught.value).startswith(f"config: {key}")


def test_a_number_format_changes_weights_and_not_rotary_frequencies() -> None:
    model = tiny_model()
    before = model.language_model.rotary_emb.inv_freq.clone()
    cast_parameters(model, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.language_model.rotary_emb.inv_freq, before)
    assert scores(model).dtype == torch.float32


# The reference ----------------------------------------------------------------------------------------------------


def test_the_reference_of_an_adapter_is_the_model_itself_without_it() -> None:
    model, plain = adapted(), scores(tiny_model())
    reference = frozen_reference(model)
    assert isinstance(reference, AdapterOff) and reference.model is model
    names, moved = trained(model), scores(model)
    assert (moved - plain).abs().max() > 0.01
    reference_scores = scores_of(reference, model)
    torch.testing.assert_close(reference_scores, plain, atol=0, rtol=0)
    assert torch.equal(scores(model), moved) and trained(model) == names


def scores_of(reference: Any, model: Any) -> Tensor:
    """`scores` of something that is called like a model, with the model's conditions."""
    tokens = torch.arange(16).reshape(4, 4)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    with torch.no_grad():
        found = reference(condition, tokens, want=["logprobs", "negative_logprobs"])
    return torch.stack([found["logprobs"], found["negative_logprobs"]])


def test_the_hellinger_distance_to_the_adapter_switched_off_is_that_to_a_copy() -> None:
    model, copy = adapted(), tiny_model()
    tokens = torch.arange(16).reshape(4, 4)
    condition = model.condition([p.text for p in PROMPTS], None)
    found = [
        model(condition, tokens, want=["hellinger"], reference=r.reference(condition, tokens))
        for r in (frozen_reference(model), copy)
    ]
    assert torch.equal(found[0]["hellinger"], found[1]["hellinger"])
    assert found[0]["hellinger"].max() > 0
    assert found[0]["hellinger"].requires_grad


def test_a_copied_reference_shares_the_frozen_tensors_only() -> None:
    model = tiny_model()
    choose_trained(model, TuneConfig(modules=("image_head",)), seed=0)
    copy = frozen_reference(model)
    theirs = dict(copy.named_parameters())
    for name, parameter in model.named_parameters():
        assert (theirs[name] is parameter) == (not name.startswith("image_head")), name
        assert torch.equal(theirs[name], parameter)
    assert not trained(copy) and trained(model)


def test_merging_leaves_a_plain_model_that_scores_the_same() -> None:
    model = adapted(moved=0.1)
    moved = scores(model)
    merge_adapter(model)
    assert model.state_dict().keys() == tiny_model().state_dict().keys()
    torch.testing.assert_close(scores(model), moved, atol=1e-4, rtol=0)


def test_merging_into_bfloat16_weights_rounds_nothing_away() -> None:
    model = tiny_model()
    cast_parameters(model, torch.bfloat16)
    choose_trained(model, LORA, seed=0)
    layers = dict(adapter_layers(model))
    wanted = {}
    for name, layer in layers.items():
        torch.nn.init.constant_(layer.lora_B["default"].weight, 1e-4)
        wanted[name] = layer.get_base_layer().weight.float() + layer.get_delta_weight("default")
    merge_adapter(model)
    for name, weight in wanted.items():
        found = model.get_submodule(name).weight
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, weight.detach(), atol=1e-9, rtol=0)


# Runs -------------------------------------------------------------------------------------------------------------


def run_of(folder: Path, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return t2i_credit.train(recipe(folder, **sections))


def rewards_and_losses(run: Path) -> list[tuple[float, ...]]:
    return [(row["reward"], row["loss"], row["grad_norm"]) for row in RunReader(run).metrics()]


def test_a_checkpoint_of_an_adapter_run_holds_the_adapter_only(tmp_path: Path) -> None:
    tune = {"lora_rank": 2, "lora_targets": ["q_proj"]}
    run = run_of(tmp_path, tune=tune, loss={"kl_coef": 0.1})
    state = load_file(run / "checkpoints/000006/model.safetensors")
    assert len(state) == 2 * 2 and all("q_proj.lora_" in name for name in state)
    rows = RunReader(run).metrics()
    assert rows[0]["kl"] == 0.0 and rows[-1]["kl"] > 0  # policy and reference part ways


@pytest.mark.parametrize("policy", ["conditional", "guided"])
@pytest.mark.parametrize("tune", [{}, {"lora_rank": 2}])
def test_in_mixed_precision_policy_and_reference_are_equal_at_the_first_step(
    tmp_path: Path, tune: dict[str, Any], policy: str
) -> None:
    """Both round alike, so that the KL term begins at 0 and credit by the distance to the reference with uniform."""
    loss = {"policy": policy, "ratio_guard": None}
    train = {"precision": "bf16", "steps": 1}
    for name, sections in (
        ("kl", {"loss": {**loss, "kl_coef": 0.1}}),
        ("credit", {"loss": loss, "credit": {"name": "distribution_guided"}}),
    ):
        run = run_of(tmp_path / name, tune=tune, train=train, **sections)
        (row,) = RunReader(run).metrics()
        assert row["grad_norm"] > 0
        if name == "kl":
            assert row["kl"] == 0.0
        else:
            assert row["credit_max"] == 1.0


@pytest.mark.parametrize("tune", [{"lora_rank": 2}, {"modules": ["image_head"], "ema": 0.5}])
def test_a_resumed_run_repeats_the_undisturbed_one(tmp_path: Path, tune: dict[str, Any]) -> None:
    whole = run_of(tmp_path / "whole", tune=tune)
    run_of(tmp_path / "parts", tune=tune, train={"steps": 3})
    again = t2i_credit.train(recipe(tmp_path / "parts", tune=tune), resume=True)
    assert rewards_and_losses(again) == rewards_and_losses(whole)
    for file in ("model.safetensors", "state.safetensors"):
        ours, theirs = (load_file(r / "checkpoints/000006" / file) for r in (again, whole))
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_recomputing_layers_changes_nothing_but_memory(tmp_path: Path) -> None:
    plain = run_of(tmp_path / "a", train={"steps": 2})
    again = run_of(tmp_path / "b", train={"steps": 2}, tune={"recompute": True})
    for ours, theirs in zip(rewards_and_losses(plain), rewards_and_losses(again), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_an_adapter_of_a_bfloat16_model_is_float32() -> None:
    model = tiny_model()
    cast_parameters(model, torch.bfloat16)
    choose_trained(model, TuneConfig(lora_rank=2), seed=0)
    formats = {p.requires_grad: p.dtype for p in model.parameters()}
    assert formats == {True: torch.float32, False: torch.bfloat16}
    assert scores(model).dtype == torch.float32


def test_micro_batches_by_tokens_equal_those_by_images(tmp_path: Path) -> None:
    # 8 images of 4 tokens, both branches trained: 24 tokens are 3 images
    tokens = run_of(tmp_path / "a", train={"steps": 2, "micro_batch_tokens": 24})
    images = run_of(tmp_path / "b", train={"steps": 2, "micro_batch_size": 3})
    assert rewards_and_losses(tokens) == rewards_and_losses(images)
    with pytest.raises(ConfigError, match="micro_batch_tokens: is refused with"):
        parse_config({"train": {"micro_batch_tokens": 24, "micro_batch_size": 3}})


def test_a_moving_average_follows_by_its_decay() -> None:
    weight = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    average = MovingAverage({"w": weight}, 0.75)
    average.update({"w": torch.tensor([5.0, 2.0])})
    average.update({"w": torch.tensor([5.0, 6.0])})
    # 1 -> 0.75 * 1 + 0.25 * 5 = 2 -> 0.75 * 2 + 0.25 * 5 = 2.75; 2 -> 2 -> 0.75 * 2 + 0.25 * 6 = 3
    assert torch.equal(average.state["w"], torch.tensor([2.75, 3.0]))


def test_a_run_that_kept_an_average_is_loaded_with_it(tmp_path: Path) -> None:
    run = run_of(tmp_path, tune={"ema": 0.9}, train={"steps": 3})
    newest = load_file(run / "checkpoints/000003/model.safetensors")
    loaded = t2i_credit.load_model(run, device="cpu")
    name = "image_head.weight"
    assert not torch.equal(loaded.state_dict()[name], newest[name])
    first = tiny_model().state_dict()[name]
    steps = (newest[name] - first).abs().max(), (loaded.state_dict()[name] - first).abs().max()
    assert 0 < steps[1] < steps[0]  # behind the newest, ahead of the first


def test_a_run_can_go_on_from_a_run_with_an_adapter(tmp_path: Path) -> None:
    first = run_of(tmp_path, tune={"lora_rank": 2}, train={"steps": 2})
    config = recipe(
        tmp_path, model={"name": str(first)}, tune={"lora_rank": 3}, train={"name": "second"}
    )
    parts = prepare(parse_config(config))
    assert torch.allclose(scores(parts.model), scores(t2i_credit.load_model(first)), atol=1e-4)
    assert all("lora_" in name for name in trained(parts.model))
