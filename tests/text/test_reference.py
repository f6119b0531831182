"""What DGPO for text compares the policy with is the model that training began with, and it runs once per rollout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the pip extra text")

import torch
from peft import LoraConfig, get_peft_model
from scripted_texts import CONTRAST, SCRIPT, Album, ScriptedTrainer
from tiny_texts import questions, settings, shade, write_checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM

from t2i_credit.text.run import passes_needed
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)
DGPO = TextCreditConfig({"name": "distribution_guided", "tau": 0.01})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama, whose head is its own."""
    return write_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


def lora(**changed: Any) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", r=4, **changed)


def trained_before(checkpoint: Path, **changed: Any) -> Any:
    """A model with an adapter that does something already."""
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint), lora(init_lora_weights=False, **changed)
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "modules_to_save" in name:
                weights.mul_(1.5)
    return model


def distributions(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """(T, V) float64 of each answer alone, without padding."""
    found = []
    with torch.no_grad():
        for row, taken in enumerate(inputs["completion_ids"]):
            prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
            kept = taken[inputs["completion_mask"][row].bool()]
            logits = model(torch.cat([prompt, kept])[None]).logits[0, len(prompt) - 1 : -1]
            found.append(logits.double().softmax(-1))
    return found


STARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a copy": ({}, {}),
    "a copy, head cast": ({}, {"cast_lm_head_to_fp32": True}),
    "trl's own": ({}, {"beta": 0.1}),
    "trl's own, head cast": ({}, {"beta": 0.1, "cast_lm_head_to_fp32": True}),
    "a new adapter": ({"peft_config": lora()}, {}),
    "a new adapter and head": ({"peft_config": lora(modules_to_save=["lm_head"])}, {}),
    "an old adapter": ({}, {}),
    "an old adapter, in trl's way": ({}, {"beta": 0.1}),
    "an old adapter and head": ({"modules_to_save": ["lm_head"]}, {}),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_reference_is_the_model_that_training_began_with(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    given, changed = STARTS[name]
    if name.startswith("an old adapter"):
        model, given = trained_before(checkpoint, **given), {}
    else:
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
    start = copy.deepcopy(model)
    args = settings(tmp_path, num_iterations=2, max_steps=2, learning_rate=0.1, **changed)
    trainer = ScriptedTrainer(model, shade, args, questions(), credit=DGPO, **given)
    trainer.train()
    inputs = trainer._buffered_inputs[0]
    found = trainer._fields(inputs, frozenset({"hellinger"}))["hellinger"]
    now, then = distributions(trainer.model.eval(), inputs), distributions(start, inputs)
    largest = 0.0
    for row, (p, q) in enumerate(zip(now, then, strict=True)):
        wanted = 1 - (p * q).sqrt().sum(-1)
        torch.testing.assert_close(found[row, : len(p)].double(), wanted, atol=2e-4, rtol=0)
        largest = max(largest, float(wanted.max()))
    assert largest > 0.05  # the policy is another one now


def test_the_cast_head_of_a_copy_takes_features_of_half_precision(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    args = settings(tmp_path, max_steps=1, cast_lm_head_to_fp32=True)
    album = Album()
    ScriptedTrainer(model, shade, args, questions(), credit=DGPO, watch=album).train()
    assert not album[0].fields["hellinger"].any()  # the policy itself, exactly


def test_an_old_adapter_stays_as_it_was_beside_the_one_that_learns(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = trained_before(checkpoint)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}
    args = settings(tmp_path, max_steps=2, learning_rate=0.1)
    ScriptedTrainer(model, shade, args, questions(), credit=DGPO).train()
    after = dict(model.named_parameters())
    for name, weights in before.items():
        assert torch.equal(after[name.replace(".default.", ".ref.")], weights)
        assert not torch.equal(after[name], weights)


# ---- passes ----


def contrast(**more: Any) -> TextCreditConfig:
    return TextCreditConfig({**CONTRAST, **more}, negative=PUBLISHED_NEGATIVE)


STEPS: dict[str, tuple[TextCreditConfig, dict[str, Any], int]] = {
    "uniform": (TextCreditConfig(), {}, 0),
    "uniform, two updates": (TextCreditConfig(), {"num_iterations": 2}, 1),
    "both prompts": (contrast(), {}, 2),
    "both, one of them trl's": (contrast(), {"num_iterations": 2}, 2),
    "both, at another temperature": (contrast(), {"num_iterations": 2, "temperature": 0.9}, 3),
    "whole distributions": (contrast(kind="full_kl"), {"num_iterations": 2}, 3),
    "both, anew": (contrast(refresh=True), {"num_iterations": 2}, 5),
    "reference": (DGPO, {}, 2),
    "the reference is trl's": (DGPO, {"beta": 0.1}, 2),
    "the reference is trl's, two updates": (DGPO, {"beta": 0.1, "num_iterations": 2}, 4),
}


@pytest.mark.parametrize("adapter", ["full", "lora", "old lora"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_runs_the_passes_that_are_counted(
    checkpoint: Path, tmp_path: Path, name: str, adapter: str
) -> None:
    credit, changed, frozen = STEPS[name]
    # two micro-batches, so that trl's own passes come in parts
    changed = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **changed}
    args = settings(tmp_path, **changed, max_steps=changed.get("num_iterations", 1))
    more = {"peft_config": lora()} if adapter == "lora" else {}
    model = trained_before(checkpoint) if adapter == "old lora" else str(checkpoint)
    trainer = ScriptedTrainer(model, shade, args, questions(), credit=credit, **more)
    rows = {True: 0, False: 0}

    def count(module: Any, given: Any, named: Any) -> None:
        rows[torch.is_grad_enabled()] += len(named["input_ids"])

    base = trainer.model.get_base_model() if more or adapter == "old lora" else trainer.model
    backbones = {base.base_model}
    if trainer.ref_model is not None:
        backbones.add(trainer.ref_model.base_model)
    if trainer.reference:
        backbones.add(trainer.reference.backbone)
    for backbone in backbones:
        backbone.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    needed = passes_needed(credit, args)
    assert rows[True] == 8 * needed.policy == 8 * args.max_steps
    assert rows[False] == 8 * needed.frozen == 8 * frozen


def test_passes_with_dropout_are_not_shared(checkpoint: Path, tmp_path: Path) -> None:
    album = Album()
    args = settings(tmp_path, num_iterations=2, max_steps=1, learning_rate=0.0)
    noisy = {"peft_config": lora(lora_dropout=0.9, init_lora_weights=False)}
    trainer = ScriptedTrainer(
        str(checkpoint), shade, args, questions(), credit=contrast(), watch=album, **noisy
    )
    trainer.train()
    inputs = trainer._buffered_inputs[0]
    quiet = trainer._fields(inputs, frozenset({"logprobs"}))["logprobs"]
    old = inputs["old_per_token_logps"]
    kept = inputs["completion_mask"]
    sums = [float(row.sum()) for row in quiet * kept]
    assert sorted(sums) == pytest.approx(
        sorted(float(row.sum()) for row in album[0].fields["logprobs"] * album[0].mask), abs=1e-3
    )
    assert max(abs(float(row.sum())) for row in (quiet - old) * kept) > 0.1
    assert len(SCRIPT) == len(sums)
