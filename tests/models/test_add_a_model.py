"""The example of docs/add-a-model.md: as short as it says, and a model in every respect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from repository import ROOT
from toys import PROMPTS, recipe

import t2i_credit
from t2i_credit.interfaces import ImageTokenModel
from t2i_credit.models.description import presets, read_description
from t2i_credit.models.tokenizers import KINDS
from t2i_credit.rollout.sampling import sample_rollout

DOC = (ROOT / "docs/add-a-model.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)[0]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_model.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return t2i_credit.load_model("my_model:squares", device="cpu")


def test_the_description_takes_fifteen_lines_and_is_one(tmp_path: Path) -> None:
    text = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)[0]
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 15
    (tmp_path / "mine.yaml").write_text(text)
    _, found = read_description(tmp_path / "mine.yaml")
    assert found.grid == [32, 32] and found.row_end == "<eol>"


def test_every_kind_of_image_tokenizer_and_every_preset_is_named() -> None:
    named = set(re.findall(r"`([\w.-]+)`", DOC))
    assert set(KINDS) <= named and set(presets()) <= named


def test_the_example_takes_sixty_lines() -> None:
    assert sum(bool(line.strip()) for line in CODE.splitlines()) <= 60


def test_the_example_is_an_image_token_model_whose_scores_agree_with_sampling(model: Any) -> None:
    assert isinstance(model, ImageTokenModel)
    rollout = sample_rollout(model, PROMPTS, group_size=2, cfg_scale=2.0, seed=0)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    with torch.no_grad():
        found = model(condition, rollout.tokens, want=["logprobs", "negative_logprobs"])
    for name, again in found.items():
        torch.testing.assert_close(again, getattr(rollout, name), atol=1e-5, rtol=0)
    assert torch.equal(model.encode(rollout.images), rollout.tokens)


@pytest.mark.parametrize("tune", [{}, {"lora_rank": 2}])
def test_the_example_trains_and_comes_back_from_its_run(
    model: Any, tmp_path: Path, tune: dict[str, Any]
) -> None:
    config = recipe(tmp_path, model={"name": "my_model:squares"}, tune=tune, train={"steps": 2})
    run = t2i_credit.train(config)
    trained = t2i_credit.load_model(run, device="cpu")
    condition = model.condition(["a red circle"], None)
    tokens = torch.zeros(1, 16, dtype=torch.long)
    with torch.no_grad():
        before, after = (
            m(condition, tokens, want=["logprobs"])["logprobs"] for m in (model, trained)
        )
    assert (before - after).abs().max() > 1e-4
