"""The configuration: what is accepted, what is refused, and that every refusal is one line naming file and key."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from t2i_credit.config import files as config_files
from t2i_credit.config.describe import describe
from t2i_credit.config.files import list_recipes
from t2i_credit.config.messages import KeyProblem
from t2i_credit.config.plugins import check_params
from t2i_credit.config.schema import Config, load_config, parse_config, to_yaml
from t2i_credit.errors import ConfigError, UserError
from t2i_credit.prompts.records import TASKS
from t2i_credit.rewards import REWARDS

EXAMPLE = """\
model: {name: shapes}
prompts: {tasks: [counting, colors], negative: ""}
rollout: {group_size: 8, cfg_scale: 3}
reward:
  geneval: {weight: 1}
  clip: {weight: 5e-1, model: ViT-B-32}
credit: {name: guidance_contrast, kind: abs, top: 3e-1}
loss: {kl_coef: 0.03, kl_weight: credit}
optim: {lr: 4e-4, betas: [0.9, 0.95], schedule: cosine}
train: {precision: no, trackers: []}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes x.yaml into the current folder, so that messages show a short name."""
    monkeypatch.chdir(tmp_path)

    def _write(content: str | bytes, name: str = "x.yaml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return _write


def refusal(name: str, *overrides: str) -> str:
    """The one line with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


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


def test_floats_take_whole_numbers_and_yaml_texts_such_as_4e_4(write: Any) -> None:
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


# ---- recipes and bases ----


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
                defaults = Config.model_validate({section: {"name": name}})
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
        "visual",
    )
    paper = {"loss.policy", "loss.kl_coef"}
    assert changed == {
        "grpo": set(),
        "drgrpo": {"advantage.name", "loss.aggregate"},
        "rloo": {"advantage.name"},
        "dapo": {"rollout.dynamic", "loss.clip_high"},
        "gold": {"rollout.gold", "loss.ratio"},
        **{name: {"credit.name"} for name in credited},
        "gcpo": {"credit.name", "credit.strength"},
        "grpo_conditional": paper,
        "gcpo_conditional": {*paper, "credit.name", "loss.kl_weight"},
        "visual_figure": {"credit.name", "credit.kind"},
        "visual_dapo": {"credit.name", "rollout.dynamic", "loss.clip_high"},
    }


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


# ---- refusals ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: is empty; write at least one section (model: ...)"),
        ("# nothing\n", "x.yaml: is empty; write at least one section (model: ...)"),
        ("- a\n", "x.yaml: must hold sections (model: ...), got ['a']"),
        ("just words", "x.yaml: must hold sections (model: ...), got 'just words'"),
        (b"\x89PNG\xff\x00", "x.yaml: is not a text file (UTF-8)"),
        (
            "a: \0",
            "x.yaml: holds a character that no text has (special characters are not allowed)",
        ),
        ("optim:\n  lr: 1\n  lr: 2\n", "x.yaml: line 3: key lr is given twice"),
        ("optim: &a {lr: 1}\n", "x.yaml: line 1: & and * are not supported"),
        ("optim: !!python/object:os.x {}\n", "x.yaml: line 1: tags (!) are not supported"),
        ("a: b: c\n", "x.yaml: line 1: mapping values are not allowed here"),
        ("[" * 9000, "x.yaml: is nested too deeply"),
        ("train: {seed: 0x_}", "x.yaml: holds a malformed number"),
        ("optim: {1: 2}", "x.yaml: optim.1: a key must be a text, not a value"),
        ("optim: {lr: .nan}", "x.yaml: optim.lr: nan is not allowed; must be finite"),
        ("reward: {a: {b: [-.inf]}}", "x.yaml: reward.a.b: -inf is not allowed; must be finite"),
        ("base: [a]", "x.yaml: base: must be the name of a recipe, got ['a']"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(
    write: Any, text: str | bytes, message: str
) -> None:
    assert refusal(write(text)) == message


def test_a_missing_file_a_folder_and_an_unreadable_one_are_refused(write: Any) -> None:
    assert refusal("gone.yaml") == "gone.yaml: no such file"
    write("", "folder/x.yaml")
    assert refusal("folder") == "folder: is a folder, not a YAML file"
    assert refusal("a\nb\0.yaml") == r"'a\nb\x00.yaml': no such file"
    assert refusal("").startswith("'': no such file or recipe (recipes: ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("optim: {learning_rate: 1}", "optim.learning_rate: unknown key; did you mean optim.lr?"),
        ("train: {lr: 1}", "train.lr: unknown key; did you mean optim.lr?"),
        ("lr: 1", "lr: unknown key; did you mean optim.lr?"),
        ("optimizer: {lr: 1}", "optimizer: unknown key; did you mean optim?"),
        ("rollout: {groupsize: 1}", "rollout.groupsize: unknown key; did you mean rollout.gr"),
        ("log: {zzz: 1}", "log.zzz: unknown key (allowed: samples_every, groups, probes)"),
        ("credit: {kind: abs}", "credit.kind: unknown key of 'uniform' (allowed: name, refresh, "),
        (
            "credit: {name: top_entropy, ro: 0.1}",
            "credit.ro: unknown key of 'top_entropy'; did you mean credit.rho? (allowed: ",
        ),
        (
            "credit: {name: contrast}",
            "credit.name: unknown name 'contrast'; did you mean guidance_contrast? (allowed: uni",
        ),
        ("advantage: {name: grpo}", "advantage.name: unknown name 'grpo'"),
        ("credit: {name: 'no.such:thing'}", "credit.name: no.such:thing: no.such cannot be imp"),
        ("credit: {name: 'os.path:joyn'}", "credit.name: os.path:joyn: os.path has no joyn; did"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_the_allowed_ones(
    write: Any, text: str, key: str
) -> None:
    message = refusal(write(text))
    assert message.startswith(f"x.yaml: {key}")
    assert "allowed" in message or ":" in key


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("loss.policy=free", "value 'free' is not allowed; one of guided or conditional"),
        ("rollout.group_size='12'", "value '12' is not allowed; must be a whole number"),
        ("rollout.group_size=2.5", "value 2.5 is not allowed; must be a whole number"),
        ("rollout.group_size=true", "value True is not allowed; must be a whole number"),
        ("optim.lr='12'", "value '12' is not allowed; must be a number"),
        ("optim.lr=true", "value True is not allowed; must be a number"),
        ("optim.lr=9e999", "value '9e999' is not allowed; must be finite"),
        ("optim.lr=0", "value 0 is not allowed; must be greater than 0"),
        ("optim.betas=[0.9, 1]", "value 1 is not allowed; must be less than 1"),
        ("rollout.cfg_scale=0.5", "value 0.5 is not allowed; must be greater than or equal to 1"),
        ("rollout.top_p=0", "value 0 is not allowed; must be greater than 0"),
        ("rollout.temperature=0", "value 0 is not allowed; must be greater than 0"),
        ("credit.refresh=yes", "value 'yes' is not allowed; must be true or false"),
        ("train.seed=-1", "value -1 is not allowed; must be greater than or equal to 0"),
        ("prompts.negative=3", "value 3 is not allowed; must be a text (put it in quotes)"),
        ("prompts.tasks=[]", "value [] is not allowed; null keeps all tasks"),
        ("train.trackers=[wandb, wandb]", "value ['wandb', 'wandb'] is not allowed; each name on"),
        ("optim=3", "value 3 is not allowed; must be a mapping of keys"),
        ("reward={}", "holds no reward; at least one is needed"),
        ("reward={a b: }", "name 'a b' is not allowed; a short name such as geneval, or package"),
        ("reward.geneval.weight=x", "value 'x' is not allowed; must be a number"),
        ("train.name=../x", "value '../x' is not allowed; at most 100 letters, digits and"),
        ("credit.kind=k4", "value 'k4' is not allowed; one of k3, abs, gain, symmetric or full_kl"),
        ("credit.top=high", "value 'high' is not allowed; must be a number"),
        ("credit.strength=2", "strength must be in [0, 1], got 2"),
        ("credit.top=0.9", "power_rank needs 0 < top <= mass < 1, got top 0.9 and mass 0.8"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    write: Any, override: str, problem: str
) -> None:
    key = override.partition("=")[0]
    expected = f"command line: {key}: {problem}"
    assert refusal(write(EXAMPLE), override).startswith(expected)


def test_a_group_of_one_is_refused_with_the_reason(write: Any) -> None:
    message = refusal(write("rollout: {group_size: 1}"))
    assert message.startswith("x.yaml: rollout.group_size: value 1 is not allowed; at least 2, bec")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "credit: {name: guidance_contrast}\nloss: {ratio: sequence}",
            "loss.ratio: 'sequence' is refused with credit.name 'guidance_contrast'",
        ),
        (
            "rollout: {top_k: 5}\nloss: {updates_per_rollout: 2}",
            "rollout.top_k: truncated sampling is refused with loss.policy 'guided'",
        ),
        (
            "rollout: {top_p: 0.9}\nloss: {updates_per_rollout: 2}",
            "rollout.top_p: truncated sampling is refused with loss.policy 'guided'",
        ),
        ("loss: {kl_weight: credit}", "loss.kl_weight: 'credit' is refused with loss.kl_coef 0"),
        ("credit: {refresh: true}", "credit.refresh: true is refused with credit.name 'uniform'"),
        *(
            (
                f"credit: {{name: {name}, refresh: true}}",
                f"credit.refresh: true is refused with credit.name '{name}'",
            )
            for name in ("distribution_guided", "critical_tokens", "similarity")
        ),
        (
            "loss: {kl_coef: 0.1, kl_weight: credit}",
            "loss.kl_weight: 'credit' is refused with credit.name 'uniform'",
        ),
        (
            "credit: {name: guidance_contrast, strength: 0}\nloss: {kl_coef: 0.1, kl_weight: credit}",
            "loss.kl_weight: 'credit' is refused with credit.strength 0",
        ),
        (
            "credit: {name: critical_tokens}\nloss: {kl_coef: 0.1}",
            "loss.kl_weight: 'none' is refused with credit.name 'critical_tokens' and a kl_coef",
        ),
        ("rollout: {gold: true}", "rollout.gold: true is refused with loss.ratio 'token'"),
        (
            "rollout: {gold: true}\nloss: {ratio: sequence, kl_coef: 0.1}",
            "rollout.gold: true is refused with loss.kl_coef 0.1",
        ),
        (
            "rollout: {gold: true, fail_below: 1}\nloss: {ratio: sequence}",
            "rollout.gold_reward: value 1.0 is not allowed; above rollout.fail_below (1.0)",
        ),
        (
            "rollout: {gold: true}\nloss: {ratio: sequence}\nprompts: {split: heldout}",
            "rollout.gold: true is refused with prompts.split 'heldout'",
        ),
        (
            "rollout: {gold: true}\nloss: {ratio: sequence}\nreward: {geneval: {normalize: group}}",
            "rollout.gold: true is refused with reward.geneval.normalize 'group'",
        ),
        ("reward: {geneval: {heldout: true}}", "reward: holds only held-out parts"),
        (
            "reward: {a: {}, b: {heldout: true, weight: 2}}",
            "reward.b.weight: value 2.0 is refused with heldout",
        ),
        (
            "reward: {a: {}, b: {heldout: true, normalize: running}}",
            "reward.b.normalize: value 'running' is refused with heldout",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_name(
    write: Any, text: str, problem: str
) -> None:
    assert refusal(write(text)).startswith(f"x.yaml: {problem}")


@pytest.mark.parametrize(
    "text",
    [
        "loss: {ratio: sequence}",  # uniform credit
        "credit: {name: guidance_contrast}\nloss: {ratio: sequence_token}",
        "rollout: {top_k: 5}\nloss: {policy: conditional, updates_per_rollout: 2}",
        "rollout: {top_k: 5}",  # one update: the ratio is 1
        "rollout: {cfg_scale: 1}\ncredit: {name: guidance_contrast}",  # the negative branch runs
        "credit: {name: guidance_contrast, refresh: true}",
        "optim: {warmup_steps: 5}\ntrain: {steps: 4}",  # a recipe tried for a few steps
        "credit: {name: critical_tokens}\nloss: {kl_coef: 0.1, kl_weight: credit}",
        "rollout: {gold: true, dynamic: true}\nloss: {ratio: sequence}",
        "rollout: {gold: true}\nloss: {ratio: sequence_token}\ncredit: {name: guidance_contrast}",
        "rollout: {dynamic: true, max_rounds: 1}\ncredit: {name: guidance_contrast}",
        "reward: {a: {normalize: running, weight: 2}, b: {heldout: true}}",
    ],
)
def test_the_neighbours_of_refused_combinations_are_allowed(write: Any, text: str) -> None:
    load_config(write(text))


def test_the_range_of_an_advantages_parameter_is_checked_before_anything_is_loaded(
    write: Any,
) -> None:
    message = refusal(write("advantage: {eps: -0.1}"))
    assert message == "x.yaml: advantage.eps: group_normalized needs eps >= 0, got -0.1"


# ---- plug-ins and explanations ----


def toy_plugin(
    images: Any,
    size: int = 3,
    *,
    scale: float = 1.0,
    pair: tuple[float, float] = (0.0, 1.0),
    mode: Literal["a", "b"] = "a",
    share: Annotated[float, Field(ge=0, le=1)] = 0.5,
    limit: int | None = None,
    untyped=7,
    needed: str,
) -> None:
    """A function with every kind of parameter."""


def test_parameters_are_checked_against_the_keyword_only_signature() -> None:
    checked = check_params(toy_plugin, {"needed": "x", "scale": "1e-4", "pair": [1, 2]}, "reward.t")
    assert checked == {
        "scale": 1e-4,
        "pair": (1.0, 2.0),
        "mode": "a",
        "share": 0.5,
        "limit": None,
        "untyped": 7,
        "needed": "x",
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "reward.t.needed: is missing, and has no default"),
        ({"size": 3}, "reward.t.size: unknown key (allowed: weight, scale, pair, mode, share, li"),
        ({"sclae": 1}, "reward.t.sclae: unknown key; did you mean reward.t.scale? (allowed: wei"),
        ({"mode": "c"}, "reward.t.mode: value 'c' is not allowed; one of a or b"),
        ({"share": 2}, "reward.t.share: value 2 is not allowed; must be less than or equal to 1"),
        ({"scale": float("nan")}, "reward.t.scale: value nan is not allowed; must be finite"),
        ({"limit": "3"}, "reward.t.limit: value '3' is not allowed; must be a whole number"),
        ({"untyped": "3"}, "reward.t.untyped: value '3' is not allowed; must be a whole number"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_dotted_key(params: Any, message: str) -> None:
    with pytest.raises(KeyProblem) as caught:
        check_params(toy_plugin, params, "reward.t", also=("weight",))
    assert str(caught.value).startswith(message)


def test_every_key_has_one_line_of_explanation_and_a_default() -> None:
    rows = describe(REWARDS)
    keys = [row.key for row in rows]
    kinds = [(row.key, row.type) for row in rows]  # plug-ins may share a name and differ in kind
    assert len(set(kinds)) == len(kinds)
    for row in rows:
        assert row.explanation and len(row.explanation.splitlines()) == 1, row.key
        assert "see its function" not in row.explanation, row.key
        assert row.type and row.default, row.key
    resolved = Config().model_dump(mode="json")
    for section, values in resolved.items():
        for key in values if section != "reward" else ():
            assert f"{section}.{key}" in keys


def test_the_documented_defaults_are_the_defaults() -> None:
    tree: dict[str, dict[str, Any]] = {}
    for row in describe(plugins=False):
        section, _, key = row.key.partition(".")
        if section != "reward":
            tree.setdefault(section, {})[key] = yaml.safe_load(row.default)
    assert parse_config(tree) == Config()


def test_the_tasks_are_those_of_geneval() -> None:
    assert parse_config({"prompts": {"tasks": list(TASKS)}}).prompts.tasks == TASKS


# ---- mutations ----

JUNK: list[Any] = [
    None, True, -1, 0, 1, 10**30, 1.5, float("nan"), float("inf"), 1e-300, "", "x", "12", "1e-4",
    "1e999", "no", "a\nb", "\u2028", "\x85", "\x00", "é" * 200, [], [1], [[]], {}, {"a": 1},
    {"name": 1}, {1: 2}, {"": 1}, {"weight": "x"}, b"bytes", "a.b:c", ":", "uniform", "top_entropy",
]  # fmt: skip
LETTERS = [*"ab1:-[]{}#&*!|>'\"%@`,?. \n\t\r\\", "\x00", "\x85", "\u2028", "\ufeff", "é", "<<: "]


def mutate_text(text: str, dice: random.Random) -> str:
    """A few letters deleted, inserted, replaced, or a piece repeated."""
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(text) + 1)
        to = at + dice.choice([0, 0, 1, 5])
        piece = dice.choice([dice.choice(LETTERS), "", " ", text[at : at + 20]])
        text = text[:at] + piece + text[to:]
    return text


def mutate_tree(tree: Any, dice: random.Random) -> Any:
    """One value replaced or one key renamed, added or removed, somewhere."""
    if not isinstance(tree, dict) or not tree or dice.random() < 0.1:
        return dice.choice(JUNK)
    tree = dict(tree)
    key = dice.choice(list(tree))
    action = dice.random()
    if action < 0.6:
        tree[key] = mutate_tree(tree[key], dice)
    elif action < 0.7:
        del tree[key]
    elif action < 0.85:
        tree[f"{key}{dice.choice(LETTERS)}"] = tree.pop(key)
    else:
        tree[dice.choice(["lr", "name", "weight", "kind", 1, None, "a.b", "\n"])] = dice.choice(
            JUNK
        )
    return tree


@pytest.mark.parametrize("seed", range(8))
def test_a_mutated_configuration_loads_and_round_trips_or_is_refused_in_one_line(
    write: Any, seed: int
) -> None:
    dice = random.Random(seed)
    whole = to_yaml(load_config(write(EXAMPLE)))
    outcomes = {True: 0, False: 0}
    for _ in range(60):
        text = dice.choice([EXAMPLE, whole])
        overrides: list[str] = []
        content: str | bytes = text
        way = dice.randrange(4)
        if way == 0:
            content = mutate_text(text, dice)
        elif way == 1:
            tree = yaml.safe_load(text)
            for _ in range(dice.randint(1, 2)):
                tree = mutate_tree(tree, dice)
            content = yaml.safe_dump(tree, allow_unicode=True)
        elif way == 2:
            row = dice.choice(describe(REWARDS))
            overrides = [f"{row.key}={yaml.safe_dump(dice.choice(JUNK), default_flow_style=True)}"]
            overrides = [mutate_text("credit.top=0.3", dice)] if dice.random() < 0.3 else overrides
        else:
            raw = bytearray(text.encode())
            raw[dice.randrange(len(raw))] = dice.randrange(256)
            content = bytes(raw)
        name = write(content)
        try:
            loaded = load_config(name, overrides)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, (content, overrides)
            outcomes[False] += 1
        else:
            assert load_config(write(to_yaml(loaded), "again.yaml")) == loaded
            outcomes[True] += 1
    assert min(outcomes.values()) > 0  # both ways are really taken
