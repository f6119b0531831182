"""Trainers on text whose completions are given, and what their runs have done. Holds no test. Needs the pip extra text."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_texts import Scripted

from t2i_credit.errors import UserError
from t2i_credit.text.record import TextRollout
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

CONTRAST = {"name": "guidance_contrast"}
GCPO = TextCreditConfig(CONTRAST, negative=PUBLISHED_NEGATIVE)
GOLD = TextCreditConfig(gold="answer")
SEQUENCE = {"importance_sampling_level": "sequence", "scale_rewards": "none", "loss_type": "grpo"}
# End tokens, cut-off completions and several lengths: two groups of four.
SCRIPT = ("5.", "six of it", "42!.", "a.", ".", "nine.", "0123456789", "no.")


class ScriptedTrainer(Scripted, CreditGRPOTrainer):
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


def chat(words: Any, prompt: Any) -> list[int]:
    return list(words.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])


def refusal(*args: Any, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        CreditGRPOTrainer(*args, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)
