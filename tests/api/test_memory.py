"""The estimate of a run's memory, and what is said when there is not enough."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import recipe, tiny_model

import t2i_credit
from t2i_credit.api import memory
from t2i_credit.api.memory import PROMPT, estimate, out_of_memory
from t2i_credit.api.parts import prepare
from t2i_credit.cli.commands import main
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.errors import ConfigError, ModelError, TrainingError
from t2i_credit.measure.bench import janus
from t2i_credit.measure.bench.plan import plan
from t2i_credit.models.embedded_model import EmbeddedModel
from t2i_credit.models.files import load_part
from t2i_credit.training import processes
from t2i_credit.training.tune import cast_parameters, choose_trained


def needed(reference: bool = False, processes: int = 1, **sections: Any) -> dict[str, int]:
    base: dict[str, Any] = {"prompts": {"per_step": 2}, "rollout": {"group_size": 4}}
    config = parse_config(base | sections)
    return estimate(tiny_model(), config, reference=reference, processes=processes)


def test_the_estimate_follows_the_sizes_of_the_model() -> None:
    found, model = needed(), tiny_model()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["weights"] == 4 * sum(p.numel() for p in model.parameters())
    assert found["optimizer"] == 3 * 4 * trained
    # 8 images of 4 tokens in two branches; keys and values of 2 layers of width 32, 4 bytes each
    assert found["sampling"] == 16 * (4 + PROMPT) * 2 * 32 * 2 * 4
    assert found["total"] == found["weights"] + found["optimizer"] + found["training"]


def test_every_knob_that_the_message_names_saves_memory() -> None:
    plain = needed()
    assert needed(train={"micro_batch_size": 2})["training"] * 4 == plain["training"]
    assert needed(train={"micro_batch_tokens": 16})["training"] * 4 == plain["training"]
    assert needed(rollout={"group_size": 4, "batch_size": 4})["sampling"] * 2 == plain["sampling"]
    assert needed(tune={"recompute": True})["training"] < plain["training"]
    assert needed(reference=True)["weights"] > plain["weights"]


def test_processes_share_the_samples_of_a_step_out() -> None:
    # 5 prompts of 4 images on 2 processes: 3 prompts on one of them
    both, one = needed(processes=2, prompts={"per_step": 5}), needed(prompts={"per_step": 3})
    assert (both["sampling"], both["training"]) == (one["sampling"], one["training"])


def test_processes_that_share_the_parameters_out_hold_a_part_and_gather_it_for_sampling() -> None:
    four: dict[str, Any] = {"processes": 4, "prompts": {"per_step": 4}}
    plain, full = needed(**four), needed(**four, train={"sharding": "full"})
    model = tiny_model()
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)  # the vq is frozen
    assert full["optimizer"] * 4 == 3 * trained
    assert plain["optimizer"] == 4 * trained  # DDP sends a copy of the gradient
    assert plain["weights"] - full["weights"] == trained * 3 // 4
    assert full["sampling"] - plain["sampling"] == trained * 3 // 4


def test_before_parameters_are_shared_out_each_process_holds_them_all() -> None:
    many: dict[str, Any] = {"processes": 64, "prompts": {"per_step": 64}}
    small = {"group_size": 2, "batch_size": 2}
    found = needed(True, **many, rollout=small, train={"sharding": "full", "micro_batch_size": 2})
    model = tiny_model()
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["starting"] == 4 * sum(p.numel() for p in model.parameters()) + trained
    assert found["total"] >= found["starting"] > found["weights"] + found["optimizer"]


def test_mixed_precision_keeps_a_rounded_copy_of_trained_weights_during_a_pass() -> None:
    trained = sum(p.numel() for p in tiny_model().parameters() if p.requires_grad)
    plain, mixed = needed(), needed(train={"precision": "bf16"})
    assert mixed["sampling"] - plain["sampling"] == 2 * trained
    assert mixed["training"] - 2 * trained == plain["training"] // 2  # activations of two bytes


@pytest.mark.parametrize(
    ("recipe", "processes", "gib"),
    [
        ("janus-pro-1b/gcpo", 1, 22.0),  # what a GPU of 24 GB has
        ("janus-pro-7b/gcpo", 8, 74.0),  # 80 GB
    ],
)
def test_shipped_recipes_fit_the_gpus_that_they_name(
    recipe: str, processes: int, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janus, "local_device", lambda: "meta")
    model = janus.random_janus(recipe.partition("/")[0])
    config = load_config(recipe)
    cast_parameters(model, getattr(torch, config.model.dtype))
    with torch.device("meta"):
        choose_trained(model, config.tune, seed=0)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    found = estimate(model, config, reference=not config.tune.lora_rank, processes=processes)
    assert gib / 4 < found["total"] / 2**30 < gib
    if processes > 1:  # and they need to share the parameters out
        alone = estimate(model, config, reference=True)
        assert alone["weights"] + alone["optimizer"] > 2**30 * gib


def test_a_dry_run_refuses_what_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = prepare(parse_config(recipe(tmp_path)))
    assert plan(parts)["memory, about"].endswith(" MiB")
    monkeypatch.setattr(memory, "available", lambda device: 2**20)
    with pytest.raises(ConfigError, match=r"GiB are needed and .* has 0\.0: lower train\.micro"):
        plan(parts)


def test_weights_that_cannot_fit_are_refused_before_they_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(recipe(tmp_path, loss={"kl_coef": 0.1}))
    model = tiny_model()
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moved: list[str] = []
    monkeypatch.setattr(processes, "local_device", lambda: "a GPU")

    def to(model: EmbeddedModel, place: str) -> EmbeddedModel:
        moved.append(place)
        return model

    monkeypatch.setattr(EmbeddedModel, "to", to)
    # the weights, the reference's, the gradient and two moments
    room = 4 * (parameters + 4 * trained)
    monkeypatch.setattr(memory, "available", lambda device: room - 1)
    with pytest.raises(ConfigError, match=r"GiB are needed and a GPU has 0\.0: train an adapter"):
        prepare(config)
    assert moved == ["cpu"]
    monkeypatch.setattr(memory, "available", lambda device: room)
    prepare(config)
    assert moved == ["cpu", "cpu", "a GPU"]


@pytest.mark.parametrize("of", ["torch", "python", "cuda"])
def test_a_run_out_of_memory_names_the_knobs_in_one_line(tmp_path: Path, of: str) -> None:
    with pytest.raises(
        TrainingError, match=r"out of memory: lower train\.micro_batch_size"
    ) as caught:
        t2i_credit.train(recipe(tmp_path, reward={"toys:greedy_for_memory": {"of": of}}))
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)


def test_memory_that_runs_out_while_a_model_is_made_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"out of memory: lower") as caught:
        prepare(parse_config(recipe(tmp_path, model={"name": "toys:endless"})))
    assert "--resume" not in str(caught.value)  # there is nothing yet to go on with


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_other_commands_out_of_memory_end_with_one_line(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = ["a red circle"] if verb == "sample" else []
    monkeypatch.setattr(sys, "argv", ["t2i-credit", verb, "toys:endless", *prompt])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: out of memory: take a smaller model")


@pytest.mark.parametrize(("raised", "told"), [(MemoryError, MemoryError), (ValueError, ModelError)])
def test_files_that_do_not_fit_are_not_called_damaged(
    tmp_path: Path, raised: type[Exception], told: type[Exception]
) -> None:
    def load(folder: Path) -> None:
        raise raised

    with pytest.raises(told):
        load_part("model", tmp_path, load)


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"), out_of_memory():
        torch.zeros(2, 3) @ torch.zeros(2, 3)
