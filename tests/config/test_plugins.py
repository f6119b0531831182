"""Parameters of plug-ins, and the explanation of every key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from t2i_credit.config.describe import describe
from t2i_credit.config.messages import KeyProblem
from t2i_credit.config.plugins import check_params
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.prompts.records import TASKS
from t2i_credit.rewards import REWARDS


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
    checked = check_params(toy_plugin, {"needed": "x", "scale": 1e-4, "pair": [1, 2]}, "reward.t")
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
