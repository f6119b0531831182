"""Refusals of the configuration: every one is one line that names file and key."""

from __future__ import annotations

from typing import Any

import pytest
from config_files import EXAMPLE, refusal

from t2i_credit.config.schema import load_config


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
        ("train: {seed: " + "9" * 5000 + "}", "x.yaml: holds a number with too many digits"),
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
        ("log: {zzz: 1}", "log.zzz: unknown key (allowed: samples_every, groups, probes, altern"),
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
        (
            "credit: {name: 'yaml:safe_lod'}",
            "credit.name: yaml:safe_lod: yaml has no safe_lod; did",
        ),
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
        ("optim.lr=9e999", "inf is not allowed; must be finite"),
        ("optim.lr='1e-4'", "value '1e-4' is not allowed; must be a number"),
        ("train.seed=0x_", "value '0x_' is not allowed; must be a whole number"),
        ("train.seed=1_000", "value '1_000' is not allowed; must be a whole number"),
        ("train.steps=12:30", "value '12:30' is not allowed; must be a whole number"),
        ("optim.lr=0", "value 0 is not allowed; must be greater than 0"),
        ("optim.betas=[0.9, 1]", "value 1 is not allowed; must be less than 1"),
        ("rollout.cfg_scale=0.5", "value 0.5 is not allowed; must be greater than or equal to 1"),
        ("rollout.top_p=0", "value 0 is not allowed; must be greater than 0"),
        ("rollout.temperature=0", "value 0 is not allowed; must be greater than 0"),
        *(
            (f"credit.refresh={word}", f"value '{word}' is not allowed; must be true or false")
            for word in ("yes", "No", "on", "OFF", "y")
        ),
        *(
            (f"prompts.negative={word}", f"value '{word}' is not allowed; did you mean null?")
            for word in ("None", "none", "NONE", "Nil", "nULL")
        ),
        ("prompts.negative='null'", "value 'null' is not allowed; did you mean null?"),
        ("prompts.tasks=None", "value 'None' is not allowed; did you mean null?"),
        ("train.name=None", "value 'None' is not allowed; did you mean null?"),
        ("rollout.batch_size=none", "value 'none' is not allowed; did you mean null?"),
        ("train.out=None ${T2I_NOWHERE}/x", "'None ${T2I_NOWHERE}/x': the variable T2I_NOWHERE is"),
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
        (
            "critic: {file: x}",
            "critic.file: is refused with credit.name 'uniform': it has no critic",
        ),
        (
            "critic: {least: 1, most: 1}",
            "critic.most: value 1 is not allowed; above critic.least (1)",
        ),
        (
            "credit: {name: value}\ncritic: {kind: lora}",
            "critic.kind: 'lora' is refused with tune.lora_rank 0: the base that it adapts would be trained",
        ),
        (
            "credit: {name: value}\ncritic: {kind: copy}\ntune: {lora_rank: 4}",
            "critic.kind: 'copy' is refused with tune.lora_rank above 0: a second model beside an adapter",
        ),
        (
            "credit: {name: value}\nrollout: {gold: true}\nloss: {ratio: sequence_token}",
            "rollout.gold: true is refused with credit.name 'value': no critic knows a golden reference",
        ),
        (
            "credit: {name: value}\ntrain: {sharding: full}",
            "train.sharding: 'full' is refused with credit.name 'value': its parts are the policy's",
        ),
        (
            "credit: {name: value}\nreward: {geneval: {normalize: group}}",
            "reward.geneval.normalize: 'group' is refused with credit.name 'value'",
        ),
        (
            "credit: {name: value, refresh: true}",
            "credit.refresh: true is refused with credit.name 'value'",
        ),
        ("loss: {kl_form: forward}", "loss.kl_form: 'forward' is refused with loss.kl_coef 0"),
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
