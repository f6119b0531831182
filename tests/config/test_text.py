"""Recipes for text: the same files, bases, overrides and one-line refusals as for images."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2i_credit.config.files import list_recipes
from t2i_credit.config.schema import load_config, to_yaml
from t2i_credit.config.text import TextConfig, load_text_config
from t2i_credit.errors import ConfigError


def loaded(name: str, *overrides: str) -> TextConfig:
    found = load_text_config(name, overrides)
    assert found is not None
    return found[0]


def test_every_shipped_recipe_for_text_loads_and_round_trips(tmp_path: Path) -> None:
    names = list_recipes(text=True)
    assert names == [f"arithmetic/{name}" for name in ("dapo", "dgpo", "gcpo", "gold", "grpo")]
    assert not set(names) & set(list_recipes())
    for name in names:
        config = loaded(name)
        assert config.train.name == name.replace("/", "-")
        (tmp_path / "again.yaml").write_text(to_yaml(config))
        assert loaded(str(tmp_path / "again.yaml")) == config


def test_the_recipes_for_text_differ_from_grpo_in_their_method_alone() -> None:
    grpo = loaded("arithmetic/grpo").model_dump()
    changed = {}
    for name in ("dapo", "gcpo", "dgpo", "gold"):
        other = loaded(f"arithmetic/{name}").model_dump()
        changed[name] = {
            f"{section}.{key}"
            for section in grpo
            for key in {**grpo[section], **other[section]}
            if grpo[section].get(key) != other[section].get(key)
        } - {"train.name"}
    parameters = {"kind", "shape", "top", "mass", "temperature", "tau", "kappa", "strength"}
    changed = {
        name: {key for key in keys if key.removeprefix("credit.") not in parameters}
        for name, keys in changed.items()
    }
    assert changed == {
        "dapo": {"grpo.loss_type", "grpo.epsilon_high"},
        "gcpo": {"credit.name"},
        "dgpo": {"credit.name"},
        "gold": {"rollout.gold", "grpo.importance_sampling_level", "grpo.beta"},
    }


def test_a_recipe_for_images_is_none_for_text_and_the_other_way_round() -> None:
    assert load_text_config("shapes/gcpo") is None
    with pytest.raises(ConfigError, match=r"^recipe arithmetic/gcpo: is for text \(section grpo\)"):
        load_config("arithmetic/gcpo")


def test_overrides_reach_every_section() -> None:
    config = loaded("arithmetic/gcpo", "credit.kind=abs", "grpo.beta=0.1", "train.name=try")
    assert config.credit.params["kind"] == "abs" and config.grpo["beta"] == 0.1
    assert config.grpo["num_generations"] == 8 and config.train.name == "try"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "prompts.souce=x",
            "command line: prompts.souce: unknown key; did you mean prompts.source?",
        ),
        (
            "prompts.source=poems",
            "command line: prompts.source: value 'poems' is not allowed; one of",
        ),
        ("credit.tau=1", "command line: credit.tau: unknown key of 'guidance_contrast'"),
        ("optim.lr=1", "command line: optim: unknown key"),
        ("reward.clip.weight=1", "command line: reward: unknown key"),
        ("grpo=3", "command line: grpo: value 3 is not allowed; must be a mapping of keys"),
        ("train.name=a/b", "command line: train.name: value 'a/b' is not allowed; at most 100"),
        ("train.steps=0", "command line: train.steps: value 0 is not allowed"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text_config("arithmetic/gcpo", [override])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
