"""Run folders with toy steps, and how their processes seem to end. Holds no test."""

import json
import subprocess
import sys

import torch

from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.run_folder.atomic import write_json
from t2i_credit.run_folder.writer import RunWriter

H, W, V, G = 3, 5, 16, 2


def new_run(path, *, resume=False, total=10):
    environment = {"device": "cpu", "seed": 0}
    return RunWriter.create(
        path, config={"model": {"name": "toy"}}, environment=environment, total=total, resume=resume
    )


def toy_rollout(prompts=2):
    generator = torch.Generator().manual_seed(0)
    rows = prompts * G

    def values():
        return torch.randn(rows, H * W, generator=generator)

    return Rollout(
        prompts=[Prompt(f"prompt {b // G}", "" if b < G else None) for b in range(rows)],
        group_size=G,
        tokens=torch.randint(V, (rows, H * W), generator=generator),
        mask=torch.ones(rows, H * W, dtype=torch.bool),
        logprobs=values(),
        negative_logprobs=values(),
        guided_logprobs=values(),
        sampling_logprobs=values(),
        entropy=values(),
        images=torch.rand(rows, 3, 6, 10, generator=generator),
    )


def write_toy_step(run, step, rollout=None, **changes):
    rollout = rollout or toy_rollout()
    credit = torch.ones_like(rollout.logprobs)
    rewards = torch.arange(len(rollout)).float()
    given = {
        "grid": (H, W),
        "codebook_size": V,
        "rewards": rewards,
        "reward_parts": {"detector": rewards / 2},
        "advantages": rewards - 1.5,
        "credit": credit,
        "token_advantages": (rewards - 1.5)[:, None] * credit,
    }
    return run.write_step(step, rollout, **{**given, **changes})


def set_status(path, **changes):
    known = json.loads((path / "status.json").read_text())
    write_json(path / "status.json", {**known, **changes})


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
