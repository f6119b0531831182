"""A LoRA adapter that peft saved, as a generator's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TEXTS, write_tiny_janus
from transformers import JanusForConditionalGeneration, JanusProcessor

from t2i_credit.api.launch import train
from t2i_credit.api.models import check_model, load_model
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ModelError
from t2i_credit.training.tune import adapter_layers, merge_adapter

TOKENS = torch.arange(32).reshape(2, 16) % 24


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_janus(tmp_path_factory.mktemp("models") / "janus")


def adapted(base: Path, folder: Path, part: str, **options: Any) -> Path:
    """Saves an adapter of random weights on a part of the model ("" = all of it), and the merged model beside it."""
    model = JanusForConditionalGeneration.from_pretrained(base)
    held = model.get_submodule(part)
    torch.manual_seed(1)
    wrapped = get_peft_model(
        held, LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], **options)
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(folder / "adapter")
    merged = wrapped.merge_and_unload()
    if not part:
        model = merged
    model.save_pretrained(folder / "merged")
    JanusProcessor.from_pretrained(base).save_pretrained(folder / "merged")
    return folder / "adapter"


def logprobs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(model.condition(TEXTS, None), TOKENS, want=["logprobs"])["logprobs"]


@pytest.mark.parametrize("part", ["", "model.language_model"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_dropout": 0.5}])
def test_it_predicts_what_the_merged_model_predicts(
    base: Path, tmp_path: Path, part: str, options: dict[str, Any]
) -> None:
    found = load_model(str(adapted(base, tmp_path, part, **options)), device="cpu")
    merged = logprobs(load_model(str(tmp_path / "merged"), device="cpu"))
    assert not torch.allclose(merged, logprobs(load_model(str(base), device="cpu")), atol=0.05)
    torch.testing.assert_close(logprobs(found), merged, atol=1e-4, rtol=0)
    assert not any(p.requires_grad for p in found.parameters())
    assert adapter_layers(found)


@pytest.mark.parametrize("tune", [{}, {"lora_rank": 2}])
def test_a_run_begins_from_it(base: Path, tmp_path: Path, tune: dict[str, Any]) -> None:
    """Whether all weights are trained or a new adapter: the first predictions are those of the old adapter."""
    name = str(adapted(base, tmp_path, ""))
    config = {
        "model": {"name": name},
        "prompts": {"per_step": 1},
        "rollout": {"group_size": 2},
        "reward": {"toys:bright": {}},
        "optim": {"lr": 1e-3},
        "tune": tune,
        "train": {"steps": 1, "out": str(tmp_path / "runs")},
    }
    path = train(parse_config(config), warn=lambda line: None)
    trained, before = load_model(str(path), device="cpu"), load_model(name, device="cpu")
    merge_adapter(before)
    moved = (logprobs(trained) - logprobs(before)).abs().max()
    assert 1e-5 < moved < 0.5
    assert bool(adapter_layers(trained)) == bool(tune)


def test_what_was_trained_before_an_adapter_can_be_trained_after_it(
    base: Path, tmp_path: Path
) -> None:
    plain = load_model(str(base), device="cpu")
    found = load_model(str(adapted(base, tmp_path, "")), device="cpu")
    merge_adapter(found)
    wanted = {name for name, p in plain.named_parameters() if p.requires_grad}
    assert {name for name, p in found.named_parameters() if p.requires_grad} == wanted


def test_a_wrong_adapter_is_named_in_one_line(base: Path, tmp_path: Path) -> None:
    good = adapted(base, tmp_path, "")

    def changed(change: Any) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)
        change(copy)
        with pytest.raises(ModelError) as error:
            check_model(str(copy))
            load_model(str(copy), device="cpu")
        message = str(error.value)
        assert "\n" not in message
        return message.replace(f"{copy}/", "")

    def config(**values: Any) -> Any:
        def change(copy: Path) -> None:
            content = json.loads((copy / "adapter_config.json").read_text())
            (copy / "adapter_config.json").write_text(json.dumps({**content, **values}))

        return change

    def tensors(edit: Any) -> Any:
        def change(copy: Path) -> None:
            file = copy / "adapter_model.safetensors"
            save_file(edit(load_file(file)), file)

        return change

    assert changed(config(peft_type="IA3")) == (
        "adapter_config.json: peft_type: 'IA3' is not supported; LORA is"
    )
    assert "base_model_name_or_path: None is not allowed" in changed(
        config(base_model_name_or_path=None)
    )
    assert "is an adapter itself" in changed(config(base_model_name_or_path=str(tmp_path / "copy")))
    assert "model '/no/such': no such folder" in changed(config(base_model_name_or_path="/no/such"))
    assert changed(lambda copy: (copy / "adapter_model.safetensors").unlink()) == (
        "adapter_model.safetensors: missing; an adapter has one"
    )
    assert changed(
        lambda copy: (copy / "adapter_model.safetensors").write_bytes(b"version https://git-lfs")
    ).startswith("adapter_model.safetensors: a git-lfs pointer")
    elsewhere = changed(
        tensors(lambda t: {k.replace("layers.", "blocks."): v for k, v in t.items()})
    )
    assert elsewhere.startswith("adapter_model.safetensors: no layer model.language_model.blocks.0")
    wide = changed(tensors(lambda t: {k: v.repeat(2, 2) for k, v in t.items()}))
    assert wide.startswith("adapter_model.safetensors: does not fit JanusImageModel: ")
    whole = changed(tensors(lambda t: {**t, "base_model.model.lm_head.weight": torch.zeros(2)}))
    assert whole == (
        "adapter_model.safetensors: lm_head.weight is no part of a LoRA adapter of linear layers"
    )
