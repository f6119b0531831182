"""Two processes do what one does: shares and how they come together, a run by torchrun on two gloo processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from toys import recipe

import t2i_credit
from t2i_credit.errors import ConfigError
from t2i_credit.processes import gather_rows, reduce_metrics, require_enough_prompts, shares
from t2i_credit.run_folder import RunReader


def test_shares_cover_every_prompt_once_and_are_as_even_as_can_be() -> None:
    for prompts in range(1, 9):
        for processes in range(1, prompts + 1):
            parts = shares(prompts, processes)
            assert [i for part in parts for i in range(prompts)[part]] == list(range(prompts))
            sizes = [part.stop - part.start for part in parts]
            assert max(sizes) - min(sizes) <= 1
    assert shares(2, 3) == [slice(0, 2)] * 3  # too few to share: everyone does all


def test_rows_of_uneven_shares_come_together_in_order() -> None:
    # 3 prompts of 2 samples on 2 processes: 1 prompt for the first, 2 for the second
    rows = torch.arange(12).reshape(6, 2)
    padded = torch.cat([rows[:2], torch.zeros(2, 2, dtype=torch.long), rows[2:]])
    for index, mine in ((0, rows[:2]), (1, rows[2:])):
        accelerator = SimpleNamespace(
            num_processes=2, process_index=index, gather=lambda tensor: padded
        )
        assert torch.equal(gather_rows(mine, 3, accelerator), rows)


def test_metrics_are_summed_over_processes_and_the_largest_is_kept() -> None:
    accelerator = SimpleNamespace(
        num_processes=2, device="cpu", gather=lambda t: torch.cat([t, t + 1])
    )
    found = reduce_metrics({"loss": 0.25, "ratio_max": 1.5}, {"ratio_max"}, 2, accelerator)
    assert found == {"loss": 1.5, "ratio_max": 2.5}


def test_more_processes_than_prompts_are_refused() -> None:
    require_enough_prompts(2, 2)
    with pytest.raises(ConfigError, match=r"prompts\.per_step: 2 is not allowed with 3 processes"):
        require_enough_prompts(2, 3)


@pytest.mark.parametrize("tune", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path, tune: dict[str, Any]) -> None:
    # three prompts a step, so that shares are uneven; with eps 1 AdamW does not magnify rounding in small gradients
    sections: dict[str, Any] = {
        "tune": tune,
        "prompts": {"per_step": 3},
        "loss": {"kl_coef": 0.1},
        "optim": {"lr": 1.0, "eps": 1.0},
        "train": {"steps": 3, "micro_batch_size": 4},
    }
    alone = t2i_credit.train(recipe(tmp_path, **sections))
    config = recipe(tmp_path, **sections)
    config["train"]["name"] = "two"
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--standalone", "-m", "t2i_credit.cli", "train", str(tmp_path / "two.yaml")]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    both = alone.parent / "two"
    rows = zip(RunReader(alone).metrics(), RunReader(both).metrics(), strict=True)
    for one, two in rows:
        for name in ("reward", "loss", "grad_norm", "kl", "entropy", "ratio_max", "credit_max"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    first, last = (RunReader(run).step(1).arrays["tokens"] for run in (alone, both))
    assert (first == last).all()
    ours, theirs = (load_file(r / "checkpoints/000003/model.safetensors") for r in (alone, both))
    start = load_file(tmp_path / "model/image_layers.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=0, msg=name)
        if name in start:
            assert (tensor - start[name]).abs().max() > 1e-3  # it went somewhere
    status = json.loads((both / "status.json").read_text())
    assert status["state"] == "finished"
