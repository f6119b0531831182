"""Token credit inside trl's GRPO trainer: uniform is plain trl, weights are those worked out alone, mistakes are one line."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="needs the pip extra text")

from datasets import Dataset
from peft import LoraConfig
from tiny_texts import Scripted, completion, questions, settings, shade, write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from t2i_credit.credit.entry import token_advantages
from t2i_credit.credit.gcpo import contrast
from t2i_credit.credit.weights import power_rank
from t2i_credit.errors import UserError
from t2i_credit.losses import policy_loss
from t2i_credit.text import arguments
from t2i_credit.text.record import TextRollout
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)

CONTRAST = {"name": "guidance_contrast"}
GCPO = TextCreditConfig(CONTRAST, negative=PUBLISHED_NEGATIVE)
# End tokens, cut-off completions and several lengths: two groups of four.
SCRIPT = ("5.", "six of it", "42!.", "a.", ".", "nine.", "0123456789", "no.")


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen"))


class ScriptedTrainer(Scripted, CreditGRPOTrainer):
    script = SCRIPT


class ScriptedPlain(Scripted, GRPOTrainer):
    script = SCRIPT


class Album(list[TextRollout]):
    """Keeps every rollout that it is shown."""

    def wants(self, step: int) -> bool:
        return True

    def __call__(self, rollout: TextRollout) -> None:
        self.append(rollout)


def history(trainer: Any) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [(row["loss"], row["grad_norm"]) for row in rows]


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


def chat(words: Any, prompt: Any) -> list[int]:
    return list(words.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])


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


# ---- gradients ----

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
    page = (Path(__file__).parent.parent / "docs" / "chain-of-thought.md").read_text()
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


# ---- bad input ----

BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "credit of images": ({"credit": "similarity"}, "credit.name: 'similarity' is refused for text"),
    "guided entropy": (
        {"credit": {"name": "top_entropy", "guided": True}},
        "credit.name: 'top_entropy' is refused for text: it needs guided_entropy",
    ),
    "unknown credit": ({"credit": "gcpo"}, "credit.name: unknown name 'gcpo'"),
    "unknown key": ({"credit": {"name": "uniform", "tau": 1}}, "credit.tau: unknown key"),
    "range": ({"credit": {"name": "top_entropy", "rho": 2.0}}, "credit.rho: top_entropy needs rho"),
    "refresh": (
        {"credit": {"name": "uniform", "refresh": True}},
        "credit.refresh: true is refused with credit.name 'uniform'",
    ),
    "no negative": ({"credit": CONTRAST}, "negative: is missing"),
    "two negatives": (
        {"credit": CONTRAST, "negative": "no", "negative_column": "no"},
        "negative_column: is refused with negative",
    ),
    "negative for nobody": ({"negative": "no"}, "negative: is refused with credit.name 'uniform'"),
    "empty suffix": (
        {"credit": CONTRAST, "negative": " "},
        "negative: suffix ' ' leaves the prompt",
    ),
    "gold and credit": (
        {"credit": CONTRAST, "negative": "no", "gold": "answer"},
        "gold: is refused with credit.name 'guidance_contrast'",
    ),
    "gold that fails": (
        {"gold": "answer", "fail_below": 1.0},
        "gold_reward: value 1.0 is not allowed",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_credit_that_makes_no_sense_is_refused_in_one_line(name: str) -> None:
    given, message = BAD_CONFIGS[name]
    with pytest.raises(UserError) as caught:
        TextCreditConfig(**given)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "luspo": ({"loss_type": "luspo"}, "loss_type: 'luspo' is refused with credit.name"),
    "vespo": ({"loss_type": "vespo"}, "loss_type: 'vespo' is refused with credit.name"),
    "sapo": ({"loss_type": "sapo"}, "loss_type: 'sapo' is refused with credit.name"),
    "sequence ratio": (
        {"importance_sampling_level": "sequence"},
        "importance_sampling_level: 'sequence' is refused with credit.name",
    ),
    "liger": ({"use_liger_kernel": True}, "use_liger_kernel: true is refused with credit.name"),
    "two selections": ({"top_entropy_quantile": 0.2}, "top_entropy_quantile: value 0.2 is refused"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_what_cannot_carry_token_credit_is_refused_by_name(
    qwen: Path, tmp_path: Path, name: str
) -> None:
    changed, message = BAD_ARGUMENTS[name]
    args = settings(tmp_path)
    for key, value in changed.items():
        setattr(args, key, value)  # liger is not installed, and GRPOConfig asks for it
    with pytest.raises(UserError) as caught:
        CreditGRPOTrainer(str(qwen), shade, args, questions(), credit=GCPO)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_other_rollouts_are_refused(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^tools: is refused with credit\.name 'guidance_contrast'"
    ):
        CreditGRPOTrainer(
            str(qwen), shade, settings(tmp_path), questions(), credit=GCPO, tools=[max]
        )


def refusal(*args: Any, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        CreditGRPOTrainer(*args, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_changes_its_logits_is_refused(qwen: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(qwen)
    model.config.final_logit_softcapping = 30.0
    message = refusal(model, shade, settings(tmp_path), questions(), credit=GCPO)
    assert message.startswith("model: final_logit_softcapping is refused with credit.name")


@pytest.mark.parametrize("found", ["1.15.2", "1.17.0", "2.0.0"])
def test_another_trl_is_refused(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(arguments, "version", lambda name: found)
    with pytest.raises(UserError, match=rf"^trl {found} is installed; .* trl >=1\.16,<1\.17: pip"):
        arguments.require_tested_trl()


def test_the_old_place_hands_on_the_public_names_with_a_warning() -> None:
    sys.modules.pop("t2i_credit.integrations.trl", None)
    with pytest.warns(FutureWarning, match="is t2i_credit.text now"):
        old = importlib.import_module("t2i_credit.integrations.trl")
    assert old.CreditGRPOTrainer is CreditGRPOTrainer
    assert old.PUBLISHED_NEGATIVE == PUBLISHED_NEGATIVE
    assert all(hasattr(old, name) for name in old.__all__)


def test_the_tested_range_is_that_of_the_package() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'text = ["trl{arguments.TESTED_TRL}"]' in text


def test_a_data_set_may_be_empty_of_columns(qwen: Path, tmp_path: Path) -> None:
    bare = Dataset.from_list([{"prompt": "1+1"}, {"prompt": "2+2"}])
    trainer = CreditGRPOTrainer(str(qwen), shade, settings(tmp_path), bare, credit=GCPO)
    assert len(history(trainer)) == 2
