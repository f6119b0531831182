"""Going gold in text: a group that fails as a whole gets its reference answer, with the gradient that this should have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="needs the pip extra text")

from scripted_texts import GOLD, SEQUENCE
from tiny_texts import ANSWERS, Scripted, completion, questions, right, settings, write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from t2i_credit.errors import UserError
from t2i_credit.text.record import TextRollout
from t2i_credit.text.settings import TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen"))


class Album(list[TextRollout]):
    def wants(self, step: int) -> bool:
        return True

    def __call__(self, rollout: TextRollout) -> None:
        self.append(rollout)


class Failing(Scripted, CreditGRPOTrainer):
    """No completion is right."""

    script = ("no.", "never", ".", "not today.")


def one_step(
    checkpoint: Path,
    folder: Path,
    kind: Any = Failing,
    *,
    reward: Any = right,
    data: Any = None,
    credit: TextCreditConfig = GOLD,
    **changed: Any,
) -> tuple[Any, TextRollout, dict[str, float]]:
    args = settings(folder, **{**SEQUENCE, "max_steps": 1, "learning_rate": 0.0} | changed)
    album = Album()
    data = questions() if data is None else data
    trainer = kind(str(checkpoint), reward, args, data, credit=credit, watch=album)
    trainer.train()
    return trainer, album[0], trainer.state.log_history[0]


def test_a_reference_answer_takes_the_last_place_of_each_group_that_fails(
    checkpoint: Path, tmp_path: Path
) -> None:
    trainer, found, row = one_step(checkpoint, tmp_path)
    words = trainer._tokenizer
    assert found.gold.tolist() == [False, False, False, True] * 2
    asked = questions()
    known = {d["prompt"][0]["content"]: d["answer"] for d in asked}
    for place in (3, 7):
        answer = known[found.prompts[place][0]["content"]]
        tokens = completion(words, f"{answer}.")  # with the end token, as a completion has it
        assert found.tokens[place, : len(tokens)].tolist() == tokens
        assert int(found.mask[place].sum()) == len(tokens)
    assert found.rewards.tolist() == [0, 0, 0, 1] * 2
    # r - mean of (0, 0, 0, 1)
    assert found.advantages.tolist() == [-0.25, -0.25, -0.25, 0.75] * 2
    assert row["gold"] == 2 and row["gold_missing"] == 0
    assert row["reward_sampled"] == 0  # what the model did; trl's reward holds the reference too
    assert row["reward"] == 0.25


def test_a_group_with_one_success_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    class Sometimes(Failing):
        script = ("no.", "5.", ".", "no.", "6.", "no.", "42.", "2.")  # every answer but one

    trainer, found, row = one_step(checkpoint, tmp_path, Sometimes, num_generations=8)
    assert not found.gold.any() and row["gold"] == 0
    assert trainer._tokenizer.decode(found.tokens[7][:1]) == "2"
    assert float(found.rewards.sum()) == 1


def test_the_reward_of_a_reference_answer_is_the_weighted_total(
    checkpoint: Path, tmp_path: Path
) -> None:
    def never(completions: Any, **_: Any) -> list[float]:
        return [-1.0] * len(completions)

    credit = TextCreditConfig(gold="answer", fail_below=-0.5, gold_reward=2.0)
    _, found, row = one_step(
        checkpoint, tmp_path, reward=[right, never], credit=credit, reward_weights=[1.0, 0.5]
    )
    # a failure: 1 * 0 + 0.5 * -1; gold: 2 / 1.5 from each function, so 1 * 4/3 + 0.5 * 4/3 = 2
    assert found.rewards.tolist() == pytest.approx([-0.5, -0.5, -0.5, 2.0] * 2)
    assert row["reward_sampled"] == -0.5


def test_a_group_without_a_reference_answer_is_left_and_counted(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = questions(truth=[None, None, None, None])
    credit = TextCreditConfig(gold="truth")
    data = data.cast_column("truth", data.features["answer"])
    _, found, row = one_step(checkpoint, tmp_path, data=data, credit=credit)
    assert not found.gold.any() and not found.rewards.any()
    assert (row["gold"], row["gold_missing"]) == (0, 2)


def test_texts_and_messages_can_be_reference_answers(checkpoint: Path, tmp_path: Path) -> None:
    spoken = [[{"role": "assistant", "content": answer}] for answer in ANSWERS]
    trainer, found, _ = one_step(
        checkpoint,
        tmp_path,
        data=questions(spoken=False, told=spoken),
        credit=TextCreditConfig(gold="told"),
    )
    assert found.gold.sum() == 2
    texts = trainer._tokenizer.batch_decode(found.tokens[found.gold], skip_special_tokens=True)
    assert set(texts) <= set(ANSWERS)


def test_the_gradient_of_gold_is_that_of_its_log_probability(
    checkpoint: Path, tmp_path: Path
) -> None:
    seen: dict[str, torch.Tensor] = {}

    class Keeping(Failing):
        def training_step(self, model: Any, inputs: Any, count: Any = None) -> torch.Tensor:
            loss = super().training_step(model, inputs, count)
            seen.update({n: p.grad.clone() for n, p in model.named_parameters()})
            return loss

    _, found, _ = one_step(checkpoint, tmp_path, Keeping, max_grad_norm=0.0)
    words, model = (
        AutoTokenizer.from_pretrained(checkpoint),
        AutoModelForCausalLM.from_pretrained(checkpoint),
    )
    # GRPO's loss with one ratio s = exp(mean over t of (logp - old)) a row: at s = 1 its gradient is that of
    # -(1 / B) sum over rows of A (1 / T_b) sum over t of logp, with A = r - mean(r) = -1/4 and, of the gold row, 3/4.
    loss = torch.zeros(())
    for row, advantage in enumerate([-0.25, -0.25, -0.25, 0.75] * 2):
        asked = words.apply_chat_template(found.prompts[row], add_generation_prompt=True)[
            "input_ids"
        ]
        taken = found.tokens[row][found.mask[row]]
        logits = model(torch.cat([torch.tensor(asked), taken])[None]).logits[0, len(asked) - 1 : -1]
        logprobs = logits.log_softmax(-1)[torch.arange(len(taken)), taken]
        loss = loss - advantage * logprobs.mean() / 8
    loss.backward()
    largest = 0.0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)
        largest = max(largest, float(parameter.grad.abs().max()))
    assert largest > 0.01


def test_gold_makes_the_answer_likelier(checkpoint: Path, tmp_path: Path) -> None:
    def likelihood(model: Any) -> float:
        words = AutoTokenizer.from_pretrained(checkpoint)
        total = 0.0
        for example in questions():
            asked = words.apply_chat_template(example["prompt"], add_generation_prompt=True)[
                "input_ids"
            ]
            taken = completion(words, example["answer"] + ".")
            with torch.no_grad():
                logits = model(torch.tensor([[*asked, *taken]])).logits[0, len(asked) - 1 : -1]
            total += float(logits.log_softmax(-1)[torch.arange(len(taken)), taken].sum())
        return total

    args = {"max_steps": 6, "learning_rate": 3e-2, "num_iterations": 2}
    trainer, _, _ = one_step(checkpoint, tmp_path, **args)
    assert (
        likelihood(trainer.model) > likelihood(AutoModelForCausalLM.from_pretrained(checkpoint)) + 1
    )


def test_nobody_sampled_a_reference_answer_and_its_ratio_is_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    class Sampled(Failing):
        """Gives log-probs of its sampling, as vLLM does."""

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **more: Any) -> Any:
            tokens, _ = super()._generate_single_turn(prompt_ids, *args, **more)
            return tokens, [[-1.0] * len(row) for row in tokens]

    # with a threshold trl compares these log-probs with those of the policy
    trainer, _, row = one_step(checkpoint, tmp_path, Sampled, off_policy_mask_threshold=50.0)
    kept = trainer._buffered_inputs[0]
    places = kept["sampling_per_token_logps"].isnan().any(1)
    assert int(places.sum()) == 2  # one of each group
    assert torch.allclose(kept["advantages"][places], torch.tensor(0.75))
    assert row["grad_norm"] > 0


def test_evaluation_knows_no_gold(checkpoint: Path, tmp_path: Path) -> None:
    args = settings(tmp_path, **SEQUENCE, per_device_eval_batch_size=8)
    trainer = Failing(str(checkpoint), right, args, questions(), questions(), credit=GOLD)
    assert trainer.evaluate()["eval_reward"] == 0


# ---- bad input ----

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "token ratio": (
        {"importance_sampling_level": "token"},
        "importance_sampling_level: 'token' is refused with gold",
    ),
    "KL": ({"beta": 0.04}, "beta: value 0.04 is refused with gold"),
    "parts": (
        {"multi_objective_aggregation": "normalize_then_sum"},
        "multi_objective_aggregation: 'normalize_then_sum' is refused with gold",
    ),
    "weights": ({"reward_weights": [0.0]}, "reward_weights: [0.0] is refused with gold"),
    "limit": (
        {"max_completion_length": 2},
        "column answer: the reference answer '42' has 3 tokens with the end token, "
        "max_completion_length allows 2",
    ),
    "columns": (
        {"remove_unused_columns": True},
        "remove_unused_columns: true is refused with gold",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_gold_cannot_go_with_is_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    changed, message = BAD[name]
    args = settings(tmp_path, **SEQUENCE | changed)
    with pytest.raises(UserError) as caught:
        CreditGRPOTrainer(str(checkpoint), right, args, questions(), credit=GOLD)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("anwser", "gold: train_dataset has no column 'anwser'; did you mean answer?"),
        ("number", "column number: 5 is no reference answer: must be a text"),
        ("empty", "column empty: '' is no reference answer: must be a text"),
    ],
)
def test_wrong_reference_answers_are_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, column: str, message: str
) -> None:
    data = questions(number=[5, 6, 42, 2], empty=[""] * 4)
    args = settings(tmp_path, **SEQUENCE)
    with pytest.raises(UserError) as caught:
        CreditGRPOTrainer(str(checkpoint), right, args, data, credit=TextCreditConfig(gold=column))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
