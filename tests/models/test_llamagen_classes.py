"""LlamaGen's class-conditional models: classes by name and number, the null class, and all that its text models do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import write_tiny_llamagen_classes
from toys import recipe

import t2i_credit
from t2i_credit.errors import ModelError
from t2i_credit.interfaces import ImageTokenModel, Prompt
from t2i_credit.models import load_pretrained
from t2i_credit.models.llamagen import class_names
from t2i_credit.rollout.sampling import sample_rollout

CLASSES = ["golden retriever", "1", "Goldfish"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llamagen_classes(tmp_path_factory.mktemp("models") / "c2i")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_pretrained(str(folder))


def test_a_prompt_is_a_class_by_name_or_number(model: Any) -> None:
    assert isinstance(model, ImageTokenModel)
    condition = model.condition(CLASSES, [None, "goldfish", None])
    assert condition.inputs.tolist() == [[207], [1], [1], [400], [1], [400]]
    assert condition.attention_mask.all() and condition.prompts == 3


def test_most_classes_are_known_by_each_of_their_names() -> None:
    names = class_names()
    assert {number for numbers in names.values() for number in numbers} == set(range(1000))
    assert names["crane"] == [134, 517]  # a bird and a machine


def test_sampled_tokens_scored_again_give_the_stored_logprobs(model: Any) -> None:
    prompts = [Prompt(text) for text in CLASSES]
    rollout = sample_rollout(model, prompts, group_size=2, cfg_scale=3.0, seed=3)
    both = ("logprobs", "negative_logprobs")
    with torch.no_grad():
        found = model(model.condition(CLASSES, [None] * 3), rollout.tokens, want=both)
    for name, again in found.items():
        torch.testing.assert_close(again, getattr(rollout, name), atol=1e-4, rtol=0, msg=name)
    assert (found["logprobs"] - found["negative_logprobs"]).abs().max() > 0.1


def test_a_saved_model_comes_back_bit_for_bit(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "again")
    ours, theirs = model.state_dict(), load_pretrained(str(tmp_path / "again")).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a red circle", "'a red circle' is no class"),
        ("golden retreiver", "did you mean 'golden retriever'?"),
        ("400", "its number, 0 to 399"),
        ("-1", "is no class"),
        ("panda", "'panda' are several classes, 387 and 388"),
        ("toilet tissue", "is no class"),  # one of ImageNet's that this model has not
        ("", "is no class"),
    ],
)
def test_what_is_no_class_is_one_line(model: Any, text: str, said: str) -> None:
    with pytest.raises(ModelError) as refused:
        model.check(["goldfish", text])
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("tune", [{}, {"lora_rank": 2}])
def test_it_trains(folder: Path, tmp_path: Path, tune: dict[str, Any]) -> None:
    (tmp_path / "classes.txt").write_text("goldfish\n207\n")
    prompts = {"source": str(tmp_path / "classes.txt"), "per_step": 2}
    config = recipe(
        tmp_path, model={"name": str(folder)}, tune=tune, prompts=prompts, train={"steps": 2}
    )
    run = t2i_credit.train(config)
    assert t2i_credit.load_model(run).null_class == 400


def test_a_text_model_is_no_class_model(folder: Path, tmp_path: Path) -> None:
    config = (folder / "config.json").read_text()
    try:
        (folder / "config.json").write_text(config.replace("_c2i", "_t2i"))
        with pytest.raises(ModelError, match=r"cls_embedding\.uncond_embedding is missing"):
            load_pretrained(str(folder))
    finally:
        (folder / "config.json").write_text(config)
