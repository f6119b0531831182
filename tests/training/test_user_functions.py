"""What a user's own functions return is taken in every usual form, or refused in one line that names the function."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import recipe
from training_runs import silent

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ModelError, T2ICreditWarning, TrainingError
from t2i_credit.run_folder.reader import RunReader

CREDIT, ADVANTAGE = "user_functions:credit_of", "user_functions:advantage_of"


def run_with(folder: Path, **sections: Any) -> RunReader:
    config = recipe(folder, **sections, train={"steps": 2})
    return RunReader(api.train(config, warn=silent))


@pytest.mark.parametrize("kind", ["even", "lists", "array"])
def test_credit_may_come_as_tensor_lists_or_array(tmp_path: Path, kind: str) -> None:
    run = run_with(tmp_path, credit={"name": CREDIT, "kind": kind})
    assert [row["credit_max"] for row in run.metrics()] == [1.0, 1.0]


# 2 prompts x 4 images of 2 x 2 tokens; the kept samples come first: one group and one probe, also 8 rows
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("column", "returned shape (8, 1); (8, 4) is needed"),
        ("nan", "returned a value that is not finite"),
        ("text", "returned str; a tensor, an array or a list of numbers is needed"),
        ("nothing", "returned NoneType; a tensor, an array or a list of numbers is needed"),
        ("two\nlines", "raised KeyError: 'two\\nlines'; --verbose shows where"),
    ],
)
def test_credit_that_is_none_is_one_line_with_the_functions_name(
    tmp_path: Path, kind: str, said: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        run_with(tmp_path, credit={"name": CREDIT, "kind": kind})
    assert str(caught.value) == f"credit {CREDIT}: {said}"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("thousand", "the mean weight of a sample's tokens is 1e+03, not 1"),
        ("negative", "a token has weight -1; below 0"),
    ],
)
def test_unusual_credit_is_doubted_once(tmp_path: Path, kind: str, said: str) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", T2ICreditWarning)
        run_with(tmp_path, credit={"name": CREDIT, "kind": kind})
    told = [str(one.message) for one in found if issubclass(one.category, T2ICreditWarning)]
    assert len(told) == 1 and told[0].startswith(f"credit {CREDIT}: {said}")


def test_what_credit_is_off_the_mask_does_not_matter() -> None:
    entry = parse_config({"credit": {"name": CREDIT, "kind": "off the mask"}}).credit.entry
    mask = torch.tensor([[True, True, False], [False] * 3])
    credit = entry.assign({}, mask, torch.zeros(2), kind="off the mask")
    assert credit.tolist() == [[1.0, 1.0, 0.0], [0.0] * 3]


def test_advantages_may_come_as_lists(tmp_path: Path) -> None:
    run_with(tmp_path, advantage={"name": ADVANTAGE, "kind": "lists"})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("groups", "returned shape (2, 4); (8,) is needed"),
        ("infinite", "returned a value that is not finite"),
        ("unknown", "raised KeyError: 'unknown'; --verbose shows where"),
    ],
)
def test_advantages_that_are_none_are_one_line_with_the_functions_name(
    tmp_path: Path, kind: str, said: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        run_with(tmp_path, advantage={"name": ADVANTAGE, "kind": kind})
    assert str(caught.value) == f"advantage {ADVANTAGE}: {said}"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("dictionary", "returned dict; a torch.nn.Module is needed"),
        ("blind_model", "returned Blind without codebook_size"),
    ],
)
def test_a_model_function_says_the_first_thing_that_it_does_not_offer(
    function: str, said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        api.load_model(f"user_functions:{function}", device="cpu")
    assert str(caught.value) == f"model user_functions:{function}: {said}, see ImageTokenModel"
    assert api.load_model("user_functions:whole_model", device="cpu").grid == (2, 2)


def test_a_reward_that_raises_is_one_line_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        run_with(tmp_path, reward={"user_functions:failing": {}})
    said = "reward user_functions:failing: raised ValueError: two lines; --verbose shows where"
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
