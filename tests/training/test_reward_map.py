"""Where the reward looked, in a run: what is kept, what the credit makes of it, what is refused before anything is sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import bright, recipe
from training_runs import silent, timeless, trained

from t2i_credit import api
from t2i_credit.api.models import load_model
from t2i_credit.config.schema import parse_config
from t2i_credit.credit.weights import power_rank
from t2i_credit.errors import ConfigError, UserError
from t2i_credit.rollout.ground import ground_codes
from t2i_credit.run_folder.checkpoint import load_checkpoint

OCCLUDED: dict[str, Any] = {"reward": {"toys:bright": {"map": "occlusion", "map_block": 1}}}


def test_a_map_is_kept_and_changes_nothing_unless_the_credit_reads_it(tmp_path: Path) -> None:
    plain = trained(tmp_path, train={"name": "plain"})
    shown = trained(tmp_path, **OCCLUDED, train={"name": "shown"})
    assert timeless(plain) == timeless(shown)
    weights = [load_checkpoint(run.path / "checkpoints").model_state for run in (plain, shown)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "reward_map" not in plain.step(3).arrays
    found = shown.step(3)
    assert (
        found.arrays["reward_map"].shape == (8, 4) and found.arrays["reward_map"].any(1).sum() > 4
    )
    for key in ("time/map", "time/reward"):
        assert (key in shown.metrics()[2]) and (key == "time/map") == (
            key not in shown.metrics()[1]
        )


def test_the_credit_ranks_tokens_by_the_map_in_micro_batches_refills_and_golden_groups(
    tmp_path: Path,
) -> None:
    settings = {"credit": {"name": "reward_map"}, "rollout": {"dynamic": True, "max_rounds": 2}}
    whole = trained(tmp_path, **OCCLUDED, **settings, train={"name": "whole"})
    small = trained(
        tmp_path, **OCCLUDED, **settings, train={"name": "small", "micro_batch_size": 3}
    )
    for step in (1, 3, 6):
        arrays = whole.step(step).arrays
        found = torch.from_numpy(arrays["reward_map"])
        mask = torch.ones_like(found, dtype=torch.bool)
        np.testing.assert_allclose(arrays["credit"], power_rank(found.abs(), mask), atol=1e-6)
    np.testing.assert_array_equal(
        whole.step(1).arrays["reward_map"], small.step(1).arrays["reward_map"]
    )
    for one, two in zip(timeless(whole)[:1], timeless(small)[:1], strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)


def test_the_occlusion_map_of_a_run_is_what_its_reward_says(tmp_path: Path) -> None:
    record = trained(tmp_path, **OCCLUDED, train={"steps": 1}).step(1)
    model = load_model(str(tmp_path / "model"))
    tokens = torch.from_numpy(record.arrays["tokens"]).long()
    ground = ground_codes(tokens, model.codebook, model.grid)
    reward = bright()
    for t in range(4):
        edited = tokens.clone()
        edited[:, t] = ground[:, t]
        lost = reward(model.decode(tokens), []) - reward(model.decode(edited), [])
        np.testing.assert_allclose(record.arrays["reward_map"][:, t], lost, atol=1e-6)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"credit": {"name": "reward_map"}},
            "credit.name: 'reward_map' is refused: no part of the reward has a map; set "
            "reward.geneval.map to gradient, objects, occlusion or redraw",
        ),
        (
            {
                "credit": {"name": "reward_map", "refresh": True},
                "reward": {"clip": {"map": "gradient"}},
            },
            "credit.refresh: true is refused with credit.name 'reward_map'",
        ),
        ({"reward": {"clip": {"map": "saliency"}}}, "reward.clip.map: value 'saliency'"),
        ({"reward": {"clip": {"map": "occlusion", "map_block": 0}}}, "reward.clip.map_block"),
        ({"reward": {"clip": {"map": "redraw", "map_draws": 65}}}, "reward.clip.map_draws"),
        (
            {"reward": {"clip": {"map": "gradient", "map_block": 3}}},
            "reward.clip.map_block: value 3 is refused with map 'gradient': it belongs to occlusion and redraw",
        ),
        (
            {"reward": {"clip": {"map": "occlusion", "map_draws": 2}}},
            "reward.clip.map_draws: value 2 is refused with map 'occlusion': it belongs to redraw",
        ),
        (
            {"reward": {"clip": {"map_batch": 4}}},
            "reward.clip.map_batch: value 4 is refused with map",
        ),
        (
            {"reward": {"geneval": {}, "clip": {"heldout": True, "map": "gradient"}}},
            "reward.clip.map: value 'gradient' is refused with heldout",
        ),
        (
            {
                "reward": {
                    "geneval": {"map": "objects"},
                    "clip": {"map": "gradient", "normalize": "running"},
                }
            },
            "reward.clip.normalize: 'running' is refused with the maps of several parts",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(sections)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"map": "gradient"}, "'gradient' is refused: this reward has no gradient in the pixels"),
        ({"map": "objects"}, "'objects' is refused: this reward finds no objects"),
        ({"map": "redraw"}, "map_block: 2 is not allowed: the images have 2 x 2 tokens"),
    ],
)
def test_a_map_that_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path: Path, part: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        api.train(recipe(tmp_path, reward={"toys:bright": part}), warn=silent)
    assert not (tmp_path / "runs").exists()
