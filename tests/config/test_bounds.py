"""Values that no library takes, overrides that would erase others, plug-ins of the wrong kind: one line, before anything loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import PROMPTS, recipe, write_tiny_model

from t2i_credit import api
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.config.text import load_text_config
from t2i_credit.errors import ConfigError, UserError
from t2i_credit.prompts.files import save_prompts

LARGE = "99999999999999999999"


def said(*overrides: str, name: str = "shapes/dapo") -> str:
    with pytest.raises(UserError) as caught:
        load_config(name, list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["rollout=x", "rollout.group_size=4"], "rollout.group_size: rollout", "'x'"),
        (["rollout.group_size=4", "rollout=x"], "rollout.group_size: rollout", "'x'"),
        (["credit=x", "credit.name=uniform"], "credit.name: credit", "'x'"),
        (["advantage=3", "advantage.name=rloo"], "advantage.name: advantage", "3"),
        (["reward.clip=3", "reward.clip.weight=2"], "reward.clip.weight: reward.clip", "3"),
        (["reward=[]", "reward.clip.weight=2"], "reward.clip.weight: reward", "[]"),
        (["train.steps.x=3"], "train.steps.x: train.steps", "150"),
    ],
)
def test_an_override_that_would_erase_what_others_say_is_refused(
    overrides: list[str], key: str, value: str
) -> None:
    found = said(*overrides)
    assert found.startswith(f"command line: {key} is ") and "which has no keys" in found
    assert value in found or key.startswith("train")


def test_a_section_may_be_given_whole_and_in_parts() -> None:
    config = load_config("shapes/dapo", ["rollout={group_size: 6}", "rollout.cfg_scale=3"])
    plain = load_config("shapes/dapo", [])
    assert (config.rollout.group_size, config.rollout.cfg_scale) == (6, 3.0)
    assert config.rollout.dynamic is plain.rollout.dynamic is True  # the recipe's own


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("train.threads=2147483648", "1024"),
        ("loss.clip_high=1e39", "1e-30 to 1e30"),
        ("rollout.temperature=1e-300", "1e-30 to 1e30"),
        ("rollout.cfg_scale=1e300", "1e-30 to 1e30"),
        (f"train.steps={LARGE}", "2147483647"),
        (f"rollout.top_k={LARGE}", "2147483647"),
        (f"train.micro_batch_tokens={LARGE}", "2147483647"),
        ("log.probes=1000000000", "1000"),
        ("optim.lr=1e9", "to 1"),
        ("log.alternatives=9", "8"),
        ("rollout.group_size=1000000000", "100000"),
        ("advantage.name=yaml:safe_load", "yaml:safe_load(rewards, group_size)"),
        ("credit.name=yaml:safe_load", "yaml:safe_load(fields, mask, advantages)"),
        ("advantage.name=os:abort", "Python's own"),
        ("credit.name=sys:exit", "Python's own"),
    ],
)
def test_what_would_end_in_a_library_is_refused_by_the_check(override: str, allowed: str) -> None:
    found = said(override)
    assert override.partition("=")[0] in found and allowed in found


def test_the_problems_of_a_text_run_are_no_more_than_are_drawn_in_seconds() -> None:
    with pytest.raises(ConfigError, match=r"prompts.count: .*100000"):
        load_text_config("arithmetic/grpo", ["prompts.count=2147483647"])


def test_numbers_at_the_bounds_are_taken() -> None:
    given = ["train.threads=1024", "loss.kl_coef=0", "rollout.temperature=1e-30", "log.probes=0"]
    assert load_config("shapes/grpo", given).train.threads == 1024


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reward": {"yaml:safe_load": {}}}, "reward.yaml:safe_load: cannot be built: TypeError"),
        ({"reward": {"os:abort": {}}}, "os is Python's own"),
        ({"reward": {"torch:get_default_dtype": {}}}, "its builder gives dtype, no function"),
        ({"reward": {"user_functions:one_argument": {}}}, "cannot be called as"),
        ({"model": {"name": "signal:pause"}}, "signal is Python's own"),
        ({"model": {"name": "yaml:safe_load"}}, "model.name: cannot be called as yaml:safe_load()"),
        ({"reward": {"geneval": {"device": "nothere"}}}, "device: 'nothere' cannot be used"),
    ],
)
def test_a_plug_in_of_the_wrong_kind_does_not_pass_the_dry_run(
    tmp_path: Path, changed: dict[str, dict[str, object]], message: str
) -> None:
    write_tiny_model(tmp_path / "model")
    save_prompts(PROMPTS, tmp_path / "prompts.jsonl")
    config = {**recipe(tmp_path), **changed}
    with pytest.raises(UserError) as caught:
        api.prepare(parse_config(config))
    assert message in str(caught.value) and "\n" not in str(caught.value)
