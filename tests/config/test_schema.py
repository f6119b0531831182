"""The configuration: defaults, values, plug-in parameters, overrides; what is written is what is loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from config_files import EXAMPLE, refusal

from t2i_credit.config.schema import Config, load_config, to_yaml


def test_importing_the_configuration_does_not_import_torch() -> None:
    code = "import sys, t2i_credit.config as c; c.describe(plugins=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_file_holds_only_differences_from_the_defaults(write: Any) -> None:
    loaded = load_config(write(EXAMPLE))
    assert loaded.rollout.group_size == 8
    assert loaded.rollout.temperature == 1.0
    assert loaded.prompts.tasks == ("counting", "colors")
    assert loaded.prompts.negative == ""
    assert loaded.reward["clip"].weight == 0.5
    assert loaded.reward["clip"].params == {"model": "ViT-B-32"}
    assert loaded.train.precision == "no"
    assert loaded.train.trackers == ()


def test_floats_take_whole_numbers(write: Any) -> None:
    loaded = load_config(write("optim: {lr: 4e-4, weight_decay: 1, eps: 1.0e-9}\n"))
    assert (loaded.optim.lr, loaded.optim.weight_decay, loaded.optim.eps) == (4e-4, 1.0, 1e-9)
    assert isinstance(loaded.optim.weight_decay, float)


def test_the_parameters_of_a_plug_in_are_filled_in_from_its_signature(write: Any) -> None:
    loaded = load_config(write(EXAMPLE))
    assert loaded.credit.params["kind"] == "abs"
    assert loaded.credit.params["top"] == 0.3
    assert loaded.credit.params["shape"] == "power_rank"
    assert loaded.advantage.params == {"eps": 1e-4}


def test_a_configuration_is_frozen(write: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(write(EXAMPLE)).optim.lr = 1.0


def test_the_resolved_yaml_loads_as_the_same_configuration(write: Any) -> None:
    loaded = load_config(write(EXAMPLE), ["train.name=2024-01-01", "prompts.negative='no\\n1e-3'"])
    text = to_yaml(loaded)
    again = load_config(write(text, "resolved.yaml"))
    assert again == loaded
    assert to_yaml(again) == text
    assert load_config(write(to_yaml(Config()), "default.yaml")) == Config()


def test_the_name_of_the_run_is_made_from_the_name_of_the_recipe(write: Any) -> None:
    assert load_config(write("model: {}", "a b+c.yaml")).train.name == "a-b-c"
    assert load_config(write("model: {}", "x.yaml"), ["train.name=mine"]).train.name == "mine"
    assert load_config("x.yaml", ["train.name=null"]).train.name is None


# ---- overrides ----


def test_overrides_are_yaml_values_and_the_last_one_wins(write: Any) -> None:
    loaded = load_config(
        write(EXAMPLE),
        ["optim.lr=3e-4", "credit.refresh=false", "optim.lr=5e-4", "prompts.tasks=null"],
    )
    assert (loaded.optim.lr, loaded.credit.refresh, loaded.prompts.tasks) == (5e-4, False, None)


def test_another_credit_name_drops_the_parameters_of_the_old_one(write: Any) -> None:
    name = write(EXAMPLE)
    for overrides in (
        ["credit.name=top_entropy", "credit.rho=0.3"],
        ["credit.rho=0.3", "credit.name=top_entropy"],
    ):
        credit = load_config(name, overrides).credit
        assert credit.params == {"rho": 0.3, "guided": False, "strength": 1.0}
    # the same name again keeps them
    kept = load_config(name, ["credit.name=guidance_contrast"]).credit
    assert kept.params["kind"] == "abs"


def test_an_override_edits_one_reward_and_a_mapping_replaces_them_all(write: Any) -> None:
    name = write(EXAMPLE)
    edited = load_config(name, ["reward.clip.weight=2", "reward.my.rewards:sharpness.weight=3"])
    assert {k: r.weight for k, r in edited.reward.items()} == {
        "geneval": 1.0,
        "clip": 2.0,
        "my.rewards:sharpness": 3.0,
    }
    assert list(load_config(name, ["reward={aesthetic: }"]).reward) == ["aesthetic"]
    assert list(load_config(write("model: {}"), ["reward.clip.weight=1"]).reward) == [
        "geneval",
        "clip",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "command line: 'optim.lr': write key=value, such as optim.lr=3e-4"),
        ("=1", "command line: '=1': '' is no key"),
        ("optim..lr=1", "command line: 'optim..lr=1': 'optim..lr' is no key"),
        ("base=x", "command line: base: only a file names its base; name another recipe"),
        ("optim.lr=x", "command line: optim.lr: value 'x' is not allowed; must be a number"),
    ],
)
def test_a_malformed_override_is_refused(write: Any, override: str, message: str) -> None:
    assert refusal(write(EXAMPLE), override) == message
