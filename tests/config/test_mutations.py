"""Mutated configurations load and round-trip, or are refused in one line."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml
from config_files import EXAMPLE

from t2i_credit.config.describe import describe
from t2i_credit.config.schema import load_config, to_yaml
from t2i_credit.errors import UserError
from t2i_credit.rewards import REWARDS

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
