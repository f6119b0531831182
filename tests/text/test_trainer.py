"""Token credit inside trl's GRPO trainer: uniform is plain trl, weights are those worked out alone, and real runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="needs the pip extra text")

from peft import LoraConfig
from repository import ROOT
from scripted_texts import CONTRAST, GCPO, SCRIPT, Album, ScriptedTrainer, chat, history
from tiny_texts import Scripted, completion, questions, settings, shade, write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from t2i_credit.credit.entry import token_advantages
from t2i_credit.credit.gcpo import contrast
from t2i_credit.credit.weights import power_rank
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


class ScriptedPlain(Scripted, GRPOTrainer):
    script = SCRIPT


def assert_same_training(
    checkpoint: Path, args: Any, credit: TextCreditConfig, *, scripted: bool = False
) -> None:
    """Plain trl and the trainer with this credit: the same losses, gradients and weights, bit for bit."""
    base: Any = ScriptedPlain if scripted else GRPOTrainer
    plain = base(str(checkpoint), shade, args, questions())
    wanted = history(plain)  # before the other one is made: both seed the same random numbers
    credited: Any = ScriptedTrainer if scripted else CreditGRPOTrainer
    ours = credited(str(checkpoint), shade, args, questions(), credit=credit)
    assert history(ours) == wanted and len(wanted) == 3
    assert all(norm > 0 for _, norm in wanted)
    for mine, other in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, other)


# ---- uniform ----

PLAIN: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "bnpo, two parts of a step": {
        "loss_type": "bnpo",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
    },
    "dr_grpo, two updates per rollout": {"loss_type": "dr_grpo", "num_iterations": 2},
    "dapo, reference, truncated left out": {"beta": 0.1, "mask_truncated_completions": True},
    "cispo, two rollouts' worth of steps": {
        "loss_type": "cispo",
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "epsilon_high": 5.0,
    },
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo", "num_iterations": 2},
}


@pytest.mark.parametrize("name", PLAIN)
def test_uniform_credit_is_plain_grpo_bit_for_bit(qwen: Path, tmp_path: Path, name: str) -> None:
    args = settings(tmp_path, **PLAIN[name], max_steps=3)
    scripted = args.mask_truncated_completions  # random completions hardly ever end
    assert_same_training(qwen, args, TextCreditConfig("uniform"), scripted=scripted)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo"])
def test_a_credit_of_ones_for_every_token_is_plain_grpo_bit_for_bit(
    qwen: Path, tmp_path: Path, loss_type: str
) -> None:
    # strength 0 takes the whole way of token credit, both passes and the product, to weights of exactly 1
    ones = TextCreditConfig({**CONTRAST, "strength": 0.0}, negative=PUBLISHED_NEGATIVE)
    args = settings(tmp_path, loss_type=loss_type, num_iterations=2, max_steps=3)
    assert_same_training(qwen, args, ones)


# ---- weights ----


def alone(model: Any, prompt: list[int], taken: list[int]) -> Tensor:
    """(T, V) float64 log-distributions of one completion's tokens: no batch, no padding."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + taken])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


def rollout_of(checkpoint: Path, folder: Path, credit: TextCreditConfig, **changed: Any) -> Any:
    """The first rollout of a scripted run."""
    album = Album()
    args = settings(folder, max_steps=1, learning_rate=0.0, **changed)
    ScriptedTrainer(str(checkpoint), shade, args, questions(), credit=credit, watch=album).train()
    return album[0]


@pytest.mark.parametrize("updates", [1, 2])  # with two, trl's own log-probs are taken
def test_credit_is_that_of_each_completion_alone_whatever_the_padding(
    checkpoint: Path, tmp_path: Path, updates: int
) -> None:
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    parts["num_iterations"] = updates
    found = rollout_of(checkpoint, tmp_path, GCPO, **parts)
    words, model = (
        AutoTokenizer.from_pretrained(checkpoint),
        AutoModelForCausalLM.from_pretrained(checkpoint),
    )
    for row, text in enumerate(SCRIPT):
        taken = completion(words, text)[:10]
        count = len(taken)
        assert found.tokens[row, :count].tolist() == taken
        assert found.mask[row].tolist() == [place < count for place in range(found.mask.shape[1])]
        prompt = found.prompts[row]
        negative = [{"role": "user", "content": f"{prompt[0]['content']} {PUBLISHED_NEGATIVE}"}]
        assert found.negatives[row] == negative
        here = torch.arange(count), torch.tensor(taken)
        positive = alone(model, chat(words, prompt), taken)[here]
        against = alone(model, chat(words, negative), taken)[here]
        torch.testing.assert_close(
            found.fields["logprobs"][row, :count].double(), positive, atol=1e-4, rtol=0
        )
        one = torch.ones(1, count, dtype=torch.bool)
        weights = power_rank(contrast(positive[None], against[None], one), one)[0]
        torch.testing.assert_close(found.credit[row, :count], weights, atol=1e-5, rtol=0)
        assert not found.credit[row, count:].any()
    assert torch.equal(found.token_advantages, token_advantages(found.advantages, found.credit))


def test_a_truncated_completion_that_is_left_out_has_no_credit(qwen: Path, tmp_path: Path) -> None:
    found = rollout_of(qwen, tmp_path, GCPO, mask_truncated_completions=True)
    cut = torch.tensor([not text.endswith(".") for text in SCRIPT])
    assert not found.credit[cut].any() and not found.token_advantages[cut].any()
    words, model = AutoTokenizer.from_pretrained(qwen), AutoModelForCausalLM.from_pretrained(qwen)
    for row in cut.nonzero().flatten().tolist():  # its text and what the model thinks of it stay
        taken = completion(words, SCRIPT[row])[:10]
        assert found.tokens[row][found.sampled[row]].tolist() == taken
        wanted = alone(model, chat(words, found.prompts[row]), taken)
        wanted = wanted[torch.arange(len(taken)), torch.tensor(taken)]
        told = found.fields["logprobs"][row][found.sampled[row]].double()
        torch.testing.assert_close(told, wanted, atol=1e-4, rtol=0)
    means = found.credit[~cut].sum(1) / found.mask[~cut].sum(1)
    torch.testing.assert_close(means, torch.ones_like(means))


@pytest.mark.parametrize("name", ["full_kl", "entropy", "hellinger"])
def test_whole_distributions_are_compared_exactly(qwen: Path, tmp_path: Path, name: str) -> None:
    configs = {
        "full_kl": TextCreditConfig({**CONTRAST, "kind": "full_kl"}, negative=PUBLISHED_NEGATIVE),
        "entropy": TextCreditConfig("top_entropy"),
        "hellinger": TextCreditConfig("distribution_guided"),
    }
    found = rollout_of(qwen, tmp_path, configs[name])
    words, model = AutoTokenizer.from_pretrained(qwen), AutoModelForCausalLM.from_pretrained(qwen)
    for row in (0, 1):
        taken = completion(words, SCRIPT[row])[:10]
        p = alone(model, chat(words, found.prompts[row]), taken)
        if name == "full_kl":
            q = alone(model, chat(words, found.negatives[row]), taken)
            wanted = (p.exp() * (p - q)).sum(-1)
        elif name == "entropy":
            wanted = -(p.exp() * p).sum(-1)
        else:
            wanted = torch.zeros(
                len(taken)
            ).double()  # the reference is the policy itself, at first
        values = found.fields[name][row, : len(taken)].double()
        torch.testing.assert_close(values, wanted, atol=2e-4, rtol=0)


def test_dropout_is_off_while_two_prompts_are_compared(qwen: Path, tmp_path: Path) -> None:
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, lora_dropout=0.9, init_lora_weights=False)
    trainer = ScriptedTrainer(
        str(qwen),
        shade,
        settings(tmp_path, max_steps=1),
        questions(),
        credit=GCPO,
        watch=(album := Album()),
        peft_config=lora,
    )
    trainer.train()
    inputs = trainer._buffered_inputs[0]
    trainer.model.train()
    twice = [trainer._fields(inputs, frozenset({"logprobs"}))["logprobs"] for _ in range(2)]
    assert torch.equal(*twice) and trainer.model.training
    assert len(album) == 1


# ---- real runs ----

CREDITS = {
    "gcpo": GCPO,
    "gcpo, anew": TextCreditConfig({**CONTRAST, "refresh": True}, negative=PUBLISHED_NEGATIVE),
    "dgpo": TextCreditConfig("distribution_guided"),
    "top entropy": TextCreditConfig("top_entropy"),
}


@pytest.mark.parametrize("name", CREDITS)
def test_two_steps_with_lora_train_the_adapter_alone(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    trainer = CreditGRPOTrainer(
        str(checkpoint),
        shade,
        settings(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2),
        questions(),
        credit=CREDITS[name],
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=2),
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    losses = history(trainer)
    assert len(losses) == 2 and all(math.isfinite(loss) and norm > 0 for loss, norm in losses)
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)
    row = trainer.state.log_history[-2]
    assert row["credit_max"] >= 1 and 0 < row["credit_top20"] <= 1


def test_the_example_of_the_page_runs(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "chain-of-thought.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    # a checkpoint of a few thousand weights, two steps, and what keeps both small
    small = "max_steps=2, max_completion_length=8, num_generations=4, use_cpu=True, bf16=False"
    small += ", activation_checkpointing=False, dataloader_pin_memory=False"
    for theirs, ours in (("Qwen/Qwen2.5-0.5B-Instruct", str(qwen)), ("max_steps=100", small)):
        assert theirs in code
        code = code.replace(theirs, ours)
    names: dict[str, Any] = {}
    exec(compile(code, "chain-of-thought.md", "exec"), names)
    assert names["trainer"].state.global_step == 2
