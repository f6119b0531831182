"""The estimate of a run's memory, and what is said when there is not enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import recipe, tiny_model

import t2i_credit
from t2i_credit import memory
from t2i_credit.api import plan, prepare
from t2i_credit.config import parse_config
from t2i_credit.errors import ConfigError, TrainingError
from t2i_credit.memory import PROMPT, estimate


def needed(reference: bool = False, processes: int = 1, **sections: Any) -> dict[str, int]:
    base: dict[str, Any] = {"prompts": {"per_step": 2}, "rollout": {"group_size": 4}}
    config = parse_config(base | sections)
    return estimate(tiny_model(), config, reference=reference, processes=processes)


def test_the_estimate_follows_the_sizes_of_the_model() -> None:
    found, model = needed(), tiny_model()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["weights"] == 4 * sum(p.numel() for p in model.parameters())
    assert found["optimizer"] == 3 * 4 * trained
    # 8 images of 4 tokens in two branches; keys and values of 2 layers of width 32, 4 bytes each
    assert found["sampling"] == 16 * (4 + PROMPT) * 2 * 32 * 2 * 4
    assert found["total"] == found["weights"] + found["optimizer"] + found["training"]


def test_every_knob_that_the_message_names_saves_memory() -> None:
    plain = needed()
    assert needed(train={"micro_batch_size": 2})["training"] * 4 == plain["training"]
    assert needed(train={"micro_batch_tokens": 16})["training"] * 4 == plain["training"]
    assert needed(rollout={"group_size": 4, "batch_size": 4})["sampling"] * 2 == plain["sampling"]
    assert needed(tune={"recompute": True})["training"] < plain["training"]
    assert needed(reference=True)["weights"] > plain["weights"]


def test_processes_that_share_the_parameters_out_hold_a_part_and_gather_it_for_sampling() -> None:
    plain, full = needed(processes=4), needed(processes=4, train={"sharding": "full"})
    assert plain == needed()
    model = tiny_model()
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)  # the vq is frozen
    assert full["optimizer"] * 4 == plain["optimizer"] == 3 * trained
    assert plain["weights"] - full["weights"] == trained * 3 // 4
    assert full["sampling"] - plain["sampling"] == trained * 3 // 4


def test_a_dry_run_refuses_what_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = prepare(parse_config(recipe(tmp_path)))
    assert plan(parts)["memory, about"].endswith(" MiB")
    monkeypatch.setattr(memory, "available", lambda device: 2**20)
    with pytest.raises(ConfigError, match=r"GiB are needed and .* has 0\.0: lower train\.micro"):
        plan(parts)


def test_a_run_out_of_memory_names_the_knobs_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"out of memory: lower train\.micro_batch_size"
    ) as caught:
        t2i_credit.train(recipe(tmp_path, reward={"toys:greedy_for_memory": {}}))
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)
