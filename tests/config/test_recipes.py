"""The shipped recipes, and recipes that are based on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_files import refusal

from t2i_credit.config import files as config_files
from t2i_credit.config.files import list_recipes
from t2i_credit.config.schema import Config, load_config, to_yaml
from t2i_credit.errors import ConfigError


def test_every_shipped_recipe_loads_and_round_trips(write: Any) -> None:
    for recipe in list_recipes():
        loaded = load_config(recipe)
        assert loaded.train.name == recipe.replace("/", "-")
        assert load_config(write(to_yaml(loaded))) == loaded


def test_the_recipes_of_the_methods_differ_from_grpo_in_their_method_alone() -> None:
    grpo = load_config("shapes/grpo").model_dump()
    changed = {}
    for recipe in list_recipes():
        if not recipe.startswith("shapes/"):
            continue
        found = load_config(recipe)
        plain = dict(grpo)  # with the method's own knobs as they are unless a recipe says otherwise
        for section in ("credit", "advantage"):
            name = getattr(found, section).name
            if name != grpo[section]["name"]:
                mapped = {"geneval": {"map": "objects"}}  # which some credit needs
                defaults = Config.model_validate({section: {"name": name}, "reward": mapped})
                plain[section] = getattr(defaults, section).model_dump() | {"name": None}
        changed[recipe.removeprefix("shapes/")] = {
            f"{section}.{key}"
            for section, values in found.model_dump().items()
            for key, value in values.items()
            if plain[section].get(key) != value and (section, key) != ("train", "name")
        }
    del changed["clip_aesthetic"]  # gcpo with another reward
    credited = (
        "gcpo_published",
        "dgpo",
        "critical",
        "stage",
        "top_entropy",
        "entropy_rank",
        "eg_grpo",
        "visual",
    )
    paper = {"loss.policy", "loss.kl_coef"}
    recommended = {"credit.name", "rollout.dynamic", "loss.clip_high"}
    assert changed == {
        "grpo": set(),
        "drgrpo": {"advantage.name", "loss.aggregate"},
        "rloo": {"advantage.name"},
        "dapo": {"rollout.dynamic", "loss.clip_high"},
        "gold": {"rollout.gold", "loss.ratio"},
        **{name: {"credit.name"} for name in credited},
        "gcpo": {"credit.name", "credit.strength"},
        "value": {"credit.name", "critic.kind"},
        "eg_grpo_signed": {"credit.name", "credit.direction"},
        "grpo_kl": {"loss.kl_coef"},
        **{f"grpo_kl_{form}": {"loss.kl_coef", "loss.kl_form"} for form in ("forward", "js")},
        "grpo_conditional": paper,
        "gcpo_conditional": {*paper, "credit.name", "loss.kl_weight"},
        "visual_figure": {"credit.name", "credit.kind"},
        "reward_map": {"credit.name", "reward.geneval"},
        **dict.fromkeys(("visual_dapo", "recommended"), recommended),
    }


def test_what_is_recommended_for_janus_is_what_is_recommended_here() -> None:
    ours, grpo = (load_config(f"shapes/{name}").model_dump() for name in ("recommended", "grpo"))
    theirs, base = (
        load_config(f"janus-pro-1b/{name}").model_dump() for name in ("recommended", "grpo")
    )
    added = [
        {
            (section, key): found[section][key]
            for section, values in found.items()
            for key in values
            if found[section][key] != plain[section].get(key)
            and (section, key) != ("train", "name")
        }
        for found, plain in ((ours, grpo), (theirs, base))
    ]
    assert added[0] == added[1]


@pytest.mark.parametrize("method", ["grpo", "gcpo"])
def test_the_recipe_for_janus_pro_7b_has_the_published_settings(method: str) -> None:
    # arXiv 2605.29198: all weights on 8 GPUs with a prompt each; here these are shared out, in float32
    found = load_config(f"janus-pro-7b/{method}")
    assert (found.tune.lora_rank, found.tune.modules) == (0, None)
    assert (found.model.dtype, found.train.precision, found.train.sharding) == (
        ("float32", "bf16", "full")
    )
    optim = found.optim
    assert (optim.lr, optim.schedule, optim.min_lr_fraction) == (5e-6, "cosine", 0.05)
    rollout = found.rollout
    assert (rollout.group_size, rollout.cfg_scale, rollout.temperature) == (16, 5.0, 1.0)
    assert (found.loss.kl_coef, found.loss.policy) == (0.03, "conditional")
    assert (found.prompts.per_step, found.train.steps) == (8, 1600)
    gcpo = ("guidance_contrast", "credit")
    assert (found.credit.name, found.loss.kl_weight) == (
        gcpo if method == "gcpo" else ("uniform", "none")
    )


def test_a_recipe_differs_from_its_base_and_the_base_from_the_defaults(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("optim: {lr: 1e-3}\nrollout: {group_size: 6}\n", "r/grpo.yaml")
    write("base: shapes/grpo\ncredit: {name: guidance_contrast}\n", "r/gcpo.yaml")
    recipes = {f"shapes/{n}": Path(f"r/{n}.yaml") for n in ("grpo", "gcpo")}
    monkeypatch.setattr(config_files, "_recipes", lambda: recipes)
    assert list_recipes() == ["shapes/gcpo", "shapes/grpo"]
    write("base: shapes/gcpo\noptim: {eps: 1e-6}\n", "mine.yaml")
    loaded = load_config("mine.yaml")
    assert (loaded.rollout.group_size, loaded.optim.lr, loaded.optim.eps) == (6, 1e-3, 1e-6)
    assert loaded.credit.name == "guidance_contrast"
    assert load_config("shapes/gcpo").train.name == "shapes-gcpo"
    assert refusal("shapes/gcop").startswith(
        "shapes/gcop: no such file or recipe; did you mean shapes/gcpo? (recipes: shapes/gcpo,"
    )
    write("optim: {lr: fast}\n", "r/grpo.yaml")
    assert refusal("mine.yaml") == (
        "recipe shapes/grpo: optim.lr: value 'fast' is not allowed; must be a number"
    )


def test_a_file_may_be_based_on_a_file_beside_it_and_cycles_are_refused(write: Any) -> None:
    write("rollout: {group_size: 6}\n", "d/common.yaml")
    write("base: common.yaml\n", "d/mine.yaml")
    assert load_config("d/mine.yaml").rollout.group_size == 6
    write("base: mine.yaml\n", "d/common.yaml")
    message = "d/common.yaml: base: mine.yaml leads back to itself; cycles are refused"
    assert refusal("d/mine.yaml") == message


def test_a_package_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(config_files.importlib.resources, "files", missing)
    monkeypatch.setattr(config_files, "__file__", "/nowhere/t2i_credit/config/files.py")
    with pytest.raises(ConfigError, match="the package t2i-credit is not installed"):
        list_recipes()
