"""Training runs on toys whose every bit can be compared, and how they are stopped. Holds no test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toys import recipe

from t2i_credit import api
from t2i_credit.run_folder.checkpoint import load_checkpoint
from t2i_credit.run_folder.reader import RunReader

# Everything that has a state: two updates, a schedule, momentum, epochs that end inside a step, a reference.
EVERYTHING: dict[str, dict[str, Any]] = {
    "prompts": {"per_step": 3},
    "credit": {"name": "guidance_contrast"},
    "loss": {"updates_per_rollout": 2, "kl_coef": 0.05, "kl_weight": "credit"},
    "optim": {"schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.01, "lr": 3e-3},
}

# Every kind of normalisation, a held-out part, and sampling that goes on until its groups differ.
EVERY_REWARD: dict[str, dict[str, Any]] = {
    "rollout": {"dynamic": True, "max_rounds": 3},
    "reward": {
        "toys:lit": {"normalize": "running"},
        "toys:bright": {"normalize": "group", "weight": 0.5},
        "toys:constant": {"heldout": True},
    },
}


def silent(line: str) -> None:
    raise AssertionError(f"unexpected warning: {line}")


def trained(folder: Path, **sections: Mapping[str, Any]) -> RunReader:
    return RunReader(api.train(recipe(folder, **sections), warn=silent))


def timeless(run: RunReader) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]


def assert_same_run(ours: RunReader, theirs: RunReader) -> None:
    """Metrics, samples, and every bit of parameters and optimizer."""
    assert timeless(ours) == timeless(theirs)
    assert ours.checkpoints() == theirs.checkpoints()
    assert ours.steps() == theirs.steps()
    for step in ours.steps():
        a, b = ours.step(step), theirs.step(step)
        assert a.samples == b.samples
        assert a.arrays.keys() == b.arrays.keys()
        for name, array in a.arrays.items():
            np.testing.assert_array_equal(array, b.arrays[name])
    a, b = (load_checkpoint(run.path / "checkpoints") for run in (ours, theirs))
    assert a.model_state is not None and b.model_state is not None
    assert a.model_state.keys() == b.model_state.keys()
    for name, tensor in a.model_state.items():
        assert torch.equal(tensor, b.model_state[name]), name
    assert a.optimizer is not None and b.optimizer is not None
    assert a.optimizer["param_groups"] == b.optimizer["param_groups"]
    for key, state in a.optimizer["state"].items():
        assert all(torch.equal(t, b.optimizer["state"][key][name]) for name, t in state.items())


def stop_at(step: int) -> Any:
    """Stops a run after a step's metrics are written and before its checkpoint would be."""

    def report(done: int, metrics: Mapping[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return report
