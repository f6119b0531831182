"""What the text trainer refuses, in one line, and the versions of trl that it takes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the pip extra text")

from datasets import Dataset
from repository import ROOT
from scripted_texts import CONTRAST, GCPO, history, refusal
from tiny_texts import questions, settings, shade
from transformers import AutoModelForCausalLM

from t2i_credit.errors import UserError
from t2i_credit.text import arguments
from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)

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
    text = (ROOT / "pyproject.toml").read_text()
    assert f'text = ["trl{arguments.TESTED_TRL}"]' in text


def test_a_data_set_may_be_empty_of_columns(qwen: Path, tmp_path: Path) -> None:
    bare = Dataset.from_list([{"prompt": "1+1"}, {"prompt": "2+2"}])
    trainer = CreditGRPOTrainer(str(qwen), shade, settings(tmp_path), bare, credit=GCPO)
    assert len(history(trainer)) == 2
