"""Gradients of the text trainer: every loss type, steps in parts, credit that is refreshed, DGPO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="needs the pip extra text")

from peft import LoraConfig
from scripted_texts import CONTRAST, GCPO, SCRIPT, Album, ScriptedTrainer, chat
from tiny_texts import completion, questions, settings, shade
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from t2i_credit.losses import policy_loss
from t2i_credit.text.record import TextRollout
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)

AGGREGATES: dict[str, dict[str, Any]] = {
    "grpo": {"aggregate": "sequence"},
    "bnpo": {"aggregate": "token"},
    "dapo": {"aggregate": "token"},
    "dr_grpo": {"aggregate": "constant", "max_tokens": 10},
    # below its cap of epsilon_high its gradient is that of dapo without a clip
    "cispo": {"aggregate": "token", "clip_low": 1.0, "clip_high": 1e9},
}


class Keeping(ScriptedTrainer):
    """Keeps the weights before each backward pass, its loss, and the gradient after it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.kept: list[tuple[dict[str, Tensor], float, dict[str, Tensor]]] = []

    def training_step(self, model: Any, inputs: Any, count: Any = None) -> Tensor:
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        loss = super().training_step(model, inputs, count)
        gradient = {n: p.grad.clone() for n, p in model.named_parameters()}
        self.kept.append((weights, float(loss), gradient))
        return loss


def taken_logprobs(words: Any, model: Any, found: TextRollout) -> Tensor:
    """(B, T) of the script, each answer alone."""
    rows = []
    for row, text in enumerate(SCRIPT):
        taken = completion(words, text)[:10]
        prompt = chat(words, found.prompts[row])
        logits = model(torch.tensor([prompt + taken])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)[torch.arange(len(taken)), torch.tensor(taken)]
        rows.append(torch.nn.functional.pad(logprobs, (0, found.mask.shape[1] - len(taken))))
    return torch.stack(rows)


@pytest.mark.parametrize("loss_type", AGGREGATES)
@pytest.mark.parametrize(
    "more", [{}, {"beta": 0.1}, {"beta": 0.1, "mask_truncated_completions": True}]
)
def test_every_loss_type_takes_token_credit_as_the_loss_of_the_images_does(
    qwen: Path, tmp_path: Path, loss_type: str, more: dict[str, Any]
) -> None:
    # trl multiplies the KL term by the ratio unless it is told not to
    changed = {
        "use_bias_correction_kl": False,
        "loss_type": loss_type,
        "max_grad_norm": 0.0,
        **more,
    }
    if loss_type == "cispo":
        changed["epsilon_high"] = 1e9
    args = settings(tmp_path, num_iterations=2, max_steps=2, learning_rate=2e-3, **changed)
    trainer = Keeping(str(qwen), shade, args, questions(), credit=GCPO, watch=(album := Album()))
    trainer.train()
    found = album[0]
    words, model = AutoTokenizer.from_pretrained(qwen), AutoModelForCausalLM.from_pretrained(qwen)
    with torch.no_grad():
        old = taken_logprobs(words, model, found)  # that of the reference, too
    for update, (weights, loss, gradient) in enumerate(trainer.kept):
        model.load_state_dict(weights, strict=False)  # its head is its embedding
        wanted, metrics = policy_loss(
            taken_logprobs(words, model, found),
            old,
            found.token_advantages,
            found.mask,
            **{"clip_low": 0.2, "clip_high": 0.2} | AGGREGATES[loss_type],
            ref_logprobs=old,
            kl_coef=args.beta,
        )
        model.zero_grad()
        wanted.backward()
        if loss_type != "cispo":  # whose value is another one
            assert loss == pytest.approx(float(wanted.detach()), abs=1e-4)
        assert update == 0 or (metrics["ratio_max"] > 1.05 and metrics["kl"] > 1e-3)
        largest = 0.0
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                gradient[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name
            )
            largest = max(largest, float(parameter.grad.abs().max()))
        assert largest > 0.01


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "cispo"])
@pytest.mark.parametrize("credit", [GCPO, TextCreditConfig({**CONTRAST, "refresh": True}, "no")])
def test_a_step_in_two_parts_has_the_gradient_of_one(
    qwen: Path, tmp_path: Path, loss_type: str, credit: TextCreditConfig
) -> None:
    gradients = []
    for rows in (8, 4):
        args = settings(
            tmp_path,
            loss_type=loss_type,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=8 // rows,
            max_steps=1,
            learning_rate=0.0,
            max_grad_norm=0.0,
        )
        trainer = Keeping(str(qwen), shade, args, questions(), credit=credit)
        trainer.train()
        assert len(trainer.kept) == 8 // rows
        gradients.append(trainer.kept[-1][2])  # gradients add up until the step
    whole, parts = gradients
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 0.01


def advantages_of(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Where the advantages of every update will stand, as trl's loss gets them."""
    kept: list[Tensor] = []
    loss = GRPOTrainer._compute_loss

    def keeping(self: Any, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        order = inputs["completion_ids"].double().pow(2).sum(1).argsort()
        kept.append(inputs["advantages"][order])
        return loss(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", keeping)
    return kept


@pytest.mark.parametrize("refresh", [False, True])
def test_refresh_takes_the_credit_from_the_policy_of_each_update(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refresh: bool
) -> None:
    kept = advantages_of(monkeypatch)
    section = {**CONTRAST, "kind": "abs", "shape": "proportional", "refresh": refresh}
    credit = TextCreditConfig(section, negative=PUBLISHED_NEGATIVE)
    args = settings(tmp_path, num_iterations=2, max_steps=2)
    ScriptedTrainer(str(qwen), shade, args, questions(), credit=credit).train()
    first, second = kept
    assert first.dim() == second.dim() == 2
    torch.testing.assert_close(first.sum(1), second.sum(1), atol=1e-3, rtol=1e-4)  # row mean 1
    assert torch.equal(first, second) is not refresh


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_dgpo_is_uniform_until_the_policy_leaves_the_reference(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool, beta: float
) -> None:
    kept = advantages_of(monkeypatch)
    adapter = {"peft_config": LoraConfig(task_type="CAUSAL_LM", r=4)} if lora else {}
    credit = TextCreditConfig({"name": "distribution_guided", "tau": 0.01})
    args = settings(tmp_path, beta=beta, num_iterations=2, max_steps=2, learning_rate=0.1)
    trainer = ScriptedTrainer(str(qwen), shade, args, questions(), credit=credit, **adapter)
    trainer.train()
    spread = [
        max(float(row[row != 0].std()) for row in rows if (row != 0).sum() > 1) for rows in kept
    ]
    assert spread[0] < 1e-4 < spread[1]


WATCHED = {
    "both prompts, anew": TextCreditConfig({**CONTRAST, "refresh": True}, PUBLISHED_NEGATIVE),
    "whole distributions": TextCreditConfig({**CONTRAST, "kind": "full_kl"}, PUBLISHED_NEGATIVE),
    "dgpo": TextCreditConfig({"name": "distribution_guided", "tau": 0.01}),
    "uniform": TextCreditConfig(),
}


@pytest.mark.parametrize("name", WATCHED)
def test_looking_on_changes_neither_training_nor_metrics(
    qwen: Path, tmp_path: Path, name: str
) -> None:
    rows = []
    for watch in (None, Album()):
        args = settings(tmp_path, num_iterations=2, logging_steps=2)
        trainer = ScriptedTrainer(
            str(qwen), shade, args, questions(), credit=WATCHED[name], watch=watch
        )
        trainer.train()
        (row,) = [row for row in trainer.state.log_history if "loss" in row]
        rows.append({key: value for key, value in row.items() if key != "step_time"})
    assert rows[0] == rows[1]
    assert ("signed_contrast" in rows[0]) is WATCHED[name].needs_negative
