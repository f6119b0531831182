"""Training end to end on toys: the reward rises, a resumed or killed run is the undisturbed one, and what is written."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from toys import PROMPTS, command_line, recipe

from t2i_credit import api
from t2i_credit.config.files import write_yaml
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import RunError, TrainingError
from t2i_credit.run_folder.checkpoint import load_checkpoint, save_checkpoint
from t2i_credit.run_folder.layout import decode_mask
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.metrics import METRICS
from t2i_credit.training.policy import passes_needed

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


# Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["uniform", "guidance_contrast"])
def test_the_reward_rises(tmp_path: Path, credit: str) -> None:
    run = trained(
        tmp_path,
        credit={"name": credit},
        prompts={"per_step": 4},
        rollout={"group_size": 8},
        train={"steps": 25, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    metrics = run.metrics()
    # Five steps are 160 images of the same four prompts. By chance alone their means differ by s sqrt(2 / 160) = 0.11 s,
    # s = spread within a group, so one s is nine times that.
    first, last = (
        np.mean([line["reward"] for line in part]) for part in (metrics[:5], metrics[-5:])
    )
    assert last - first > metrics[0]["reward_spread"] > 0
    assert metrics[-1]["log_ratio_max"] < 1e-4  # sampling follows training
    assert metrics[-1]["samples"] == 25 * 32


def test_the_opposite_reward_falls(tmp_path: Path) -> None:
    run = trained(
        tmp_path,
        reward={"toys:bright": {"sign": -1.0, "weight": 2.0}},
        prompts={"per_step": 4},
        rollout={"group_size": 8},
        train={"steps": 15, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    brightness = [-line["reward/toys:bright"] for line in run.metrics()]
    spread = run.metrics()[0]["reward_spread"] / 2  # of the total, which has weight 2
    assert np.mean(brightness[:5]) - np.mean(brightness[-5:]) > spread
    assert run.metrics()[0]["reward"] == pytest.approx(-2 * brightness[0])


def test_the_same_configuration_gives_the_same_run_and_another_seed_another(
    tmp_path: Path,
) -> None:
    runs = [
        trained(tmp_path, train={"name": name, "steps": 3, "seed": seed})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert_same_run(runs[0], runs[1])
    assert timeless(runs[0])[0]["reward"] != timeless(runs[2])[0]["reward"]


# Resuming ---------------------------------------------------------------------------------------------------------


def stop_at(step: int) -> Any:
    """Stops a run after a step's metrics are written and before its checkpoint would be."""

    def report(done: int, metrics: Mapping[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    "sections",
    [
        EVERYTHING,
        {"credit": {"name": "distribution_guided"}, "loss": {"policy": "conditional"}},
        EVERY_REWARD,
    ],
    ids=["contrast", "distribution", "rewards"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    whole = trained(tmp_path, **sections, train={"name": "whole"})
    broken = recipe(tmp_path, **sections, train={"name": "broken"})
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(5), warn=silent)
    left = RunReader(tmp_path / "runs" / "broken")
    assert left.status().state == "stopped"
    assert len(left.metrics()) == 5 and left.checkpoints() == [3]
    told: list[str] = []
    api.train(broken, resume=True, warn=told.append)
    where = "goes on after its checkpoint of step 3"
    assert told == [f"{left.path} {where}: steps 4 to 5 are run again"]
    assert_same_run(left, whole)
    assert left.status().state == "finished"
    assert left.environment()["resumed"][0]["step"] == 3


def test_a_run_that_stopped_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    whole = trained(tmp_path, train={"name": "whole"})
    broken = recipe(tmp_path, train={"name": "broken"})
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(2), warn=silent)
    told: list[str] = []
    left = RunReader(api.train(broken, resume=True, warn=told.append))
    assert told == [f"{left.path} has no checkpoint: steps 1 to 2 are run again"]
    assert_same_run(left, whole)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run = trained(tmp_path)
    before = timeless(run)
    steps: list[int] = []
    api.train(
        recipe(tmp_path), resume=True, warn=silent, report=lambda step, metrics: steps.append(step)
    )
    assert steps == [] and timeless(run) == before
    assert run.status().state == "finished"


def test_old_checkpoints_that_a_killed_process_left_go_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"checkpoint_every": 2, "keep_checkpoints": 2}
    with monkeypatch.context() as patch:
        patch.setattr(
            "t2i_credit.training.trainer.save_checkpoint",
            lambda *args, **more: save_checkpoint(*args, **{**more, "keep": None}),
        )
        run = trained(tmp_path, train=keep)
    assert run.checkpoints() == [2, 4, 6]
    api.train(recipe(tmp_path, train=keep), resume=True, warn=silent)
    assert run.checkpoints() == [4, 6]


def test_a_resumed_run_may_go_on_for_longer(tmp_path: Path) -> None:
    longer = trained(tmp_path, train={"name": "longer", "steps": 5, "checkpoint_every": 3})
    trained(tmp_path, train={"steps": 3})
    warnings: list[str] = []
    config = recipe(tmp_path, train={"steps": 5})
    run = RunReader(api.train(config, resume=True, warn=warnings.append))
    assert warnings == ["train.steps was 3 when this run began, and is 5 now"]
    assert [line["reward"] for line in run.metrics()] == [
        line["reward"] for line in longer.metrics()
    ]


def test_resuming_with_other_values_says_so_and_uses_them(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    warnings: list[str] = []
    changed = {"lr": 5e-3, "betas": [0.5, 0.6]}
    config = recipe(tmp_path, optim=changed, train={"steps": 4})
    run = RunReader(api.train(config, resume=True, warn=warnings.append))
    assert "optim.lr was 0.01 when this run began, and is 0.005 now" in warnings
    assert any(line.startswith("optim.betas was [0.9, 0.99]") for line in warnings)
    assert len(warnings) == 3  # and train.steps
    assert run.metrics()[-1]["lr"] == 5e-3
    optimizer = load_checkpoint(run.path / "checkpoints").optimizer
    assert optimizer is not None
    assert optimizer["param_groups"][0]["betas"] == (0.5, 0.6)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, train={"steps": 3})
    for head, said in (
        (torch.nn.Linear(32, 48), r"image_head\.\w+ does not fit the model"),
        (
            torch.nn.Sequential(torch.nn.Linear(32, 32)),
            "image_head.0.bias is not in this checkpoint",
        ),
    ):
        parts = api.prepare(parse_config(recipe(tmp_path)))
        parts.model.image_head = head
        with pytest.raises(RunError, match=said) as caught:
            api.run_training(parts, resume=True, report=lambda s, m: None, warn=lambda line: None)
        assert "\n" not in str(caught.value)


# Killing ----------------------------------------------------------------------------------------------------------

KILLS = int(os.environ.get("T2I_CREDIT_KILLS", "2"))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that begin with the libraries loaded and nothing else of this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["t2i_credit.training.trainer", "t2i_credit.models.embedded_model"]
    )
    return context


class Command:
    """A training run on the command line, in a process of its own."""

    def __init__(self, context: Any, folder: Path, name: str) -> None:
        self.context, self.run, self.log = context, folder / "runs" / name, folder / f"{name}.log"
        self.arguments = ["train", str(folder / "recipe.yaml"), f"train.name={name}"]

    def start(self, *more: str) -> Any:
        """The process, once it writes its run folder (or has ended)."""
        process = self.context.Process(
            target=command_line, args=([*self.arguments, *more], self.log), daemon=True
        )
        process.start()
        while process.exitcode is None and not self._is_written_by(process.pid):
            time.sleep(0.002)
        return process

    def _is_written_by(self, pid: int) -> bool:
        try:
            return bool(RunReader(self.run).status().pid == pid)
        except RunError:
            return False

    def finish(self, process: Any) -> None:
        process.join(300)
        assert process.exitcode == 0, self.log.read_text()


def assert_whole(run: RunReader) -> None:
    """Whatever a killed run left can be read."""
    assert run.status().state == "killed"
    assert [line["step"] for line in run.metrics()] == list(range(1, len(run.metrics()) + 1))
    for step in run.checkpoints():
        load_checkpoint(run.path / "checkpoints", step)
    for step in run.steps():
        record = run.step(step)
        assert all(record.image(i).size == (16, 16) for i in range(len(record.samples)))


def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(
    tmp_path: Path, processes: Any
) -> None:
    sections = {**EVERYTHING, "train": {"steps": 8, "checkpoint_every": 2}}
    config = recipe(tmp_path, **sections, log={"samples_every": 2, "groups": 1, "probes": 1})
    (tmp_path / "recipe.yaml").write_text(write_yaml(config))
    undisturbed = Command(processes, tmp_path, "undisturbed")
    process = undisturbed.start()
    began = time.monotonic()
    undisturbed.finish(process)
    duration = time.monotonic() - began
    expected = RunReader(undisturbed.run)
    assert len(expected.metrics()) == 8

    kills, runs = 0, 0
    while kills < KILLS:
        command = Command(processes, tmp_path, f"killed{runs}")
        process = command.start()
        while kills < KILLS:
            delay = random.uniform(0, duration)
            process.join(delay)
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            if RunReader(command.run).status().state == "finished":
                assert process.exitcode in (0, -signal.SIGKILL), command.log.read_text()
                process = None  # it came too late: all was written, the process was still ending
                break
            kills += 1
            print(f"kill {kills} after {delay:.3f} s of {duration:.3f}")
            assert process.exitcode == -signal.SIGKILL
            assert_whole(RunReader(command.run))
            process = command.start("--resume")
        if process is not None:
            command.finish(process)
        assert_same_run(RunReader(command.run), expected)
        left = [p.name for p in command.run.rglob(".*")]
        assert left == []  # nothing unfinished is left behind
        runs += 1


# A disk that is full ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full_after", "samples_every", "named"),
    [(4, 3, "checkpoints"), (3, 1, "steps"), (3, 100, "metrics.jsonl")],
    ids=["checkpoint", "samples", "metrics"],
)
def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoint_to_resume_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_after: int,
    samples_every: int,
    named: str,
) -> None:
    log = {"samples_every": samples_every, "groups": 1, "probes": 1}
    common = {"steps": 5, "checkpoint_every": 2}
    whole = trained(tmp_path, log=log, train={**common, "name": "whole"})
    config = recipe(tmp_path, log=log, train=common)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(step: int, metrics: Mapping[str, float]) -> None:
        if step == full_after:
            monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(RunError, match="cannot be written: No space left on device") as caught:
        api.train(config, report=fill, warn=silent)
    assert "\n" not in str(caught.value) and named in str(caught.value)
    monkeypatch.undo()
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [2]
    assert [p.name for p in run.path.rglob(".*")] == []
    told: list[str] = []
    api.train(config, resume=True, warn=told.append)
    assert [line.partition(":")[0] for line in told] == [
        f"{run.path} goes on after its checkpoint of step 2"
    ]
    assert_same_run(run, whole)


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond 20 kB: enough for metrics and pictures, too little for a checkpoint
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match="checkpoints/000003: cannot be written") as caught:
            api.train(config, warn=silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [] and run.steps() == [1, 3]
    assert [p.name for p in run.path.rglob(".*")] == []
    assert run.status().state == "failed"
    assert "cannot be written" in run.status().message


# Warnings and refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "level"), [(0.0, "zero"), (0.25, "equal within every group")])
def test_rewards_without_spread_are_warned_of_every_ten_steps(
    tmp_path: Path, value: float, level: str
) -> None:
    warnings: list[str] = []
    config = recipe(
        tmp_path,
        reward={"toys:constant": {"value": value}},
        train={"steps": 21, "checkpoint_every": 100},
        log={"samples_every": 100},
    )
    run = RunReader(api.train(config, warn=warnings.append))
    assert [line.split(":")[0] for line in warnings] == ["step 10", "step 20"]
    assert all(level in line and "nothing is learned" in line for line in warnings)
    assert all(line["zero_spread"] == 1 and line["grad_norm"] == 0 for line in run.metrics())


def test_a_reward_that_is_not_finite_stops_with_the_step_and_before_any_update(
    tmp_path: Path,
) -> None:
    # of step 1 the rewards are asked for twice (the batch, and the kept samples); the fourth call is step 3's
    config = recipe(
        tmp_path,
        reward={"toys:broken": {"after": 3}},
        train={"checkpoint_every": 1},
        log={"samples_every": 100},
    )
    parts = api.prepare(parse_config(config))
    with pytest.raises(TrainingError) as caught:
        api.run_training(parts, resume=False, report=lambda step, metrics: None, warn=silent)
    expected = (
        "step 3: reward toys:broken: not finite for an image of this batch; no update was made"
    )
    assert str(caught.value) == expected
    run = RunReader(tmp_path / "runs" / "run")
    assert run.checkpoints() == [1, 2] and len(run.metrics()) == 2
    assert (run.status().state, run.status().message) == ("failed", expected)
    saved = load_checkpoint(run.path / "checkpoints", 2).model_state
    assert saved is not None
    now = dict(parts.model.named_parameters())
    assert all(torch.equal(tensor, now[name]) for name, tensor in saved.items())


# What a step keeps ------------------------------------------------------------------------------------------------

ARRAYS = {"tokens", "logprobs", "negative_logprobs", "guided_logprobs"}
ARRAYS |= {"contrast", "credit", "token_advantages", "entropy"}


def test_a_kept_step_holds_prompts_rewards_advantages_and_arrays(tmp_path: Path) -> None:
    run = trained(tmp_path, credit={"name": "guidance_contrast"})
    assert run.steps() == [1, 3, 6]
    record = run.step(3)
    assert record.grid == (2, 2) and record.group_size == 4 and record.codebook_size == 32
    assert len(record.samples) == 8  # a group of the step and a group of probes
    assert [s["probe"] for s in record.samples] == [False] * 4 + [True] * 4
    texts = {p.text: p.negative for p in PROMPTS}
    for place, sample in enumerate(record.samples):
        assert texts[sample["prompt"]] == sample["negative"]
        assert sample["image"] == f"{place:04d}.png"
        assert record.image(place).size == (16, 16)
        assert sample["reward"] == pytest.approx(sample["reward_parts"]["toys:bright"])
        assert sample["gold"] is False and sample["objects"] is None
    assert set(record.arrays) == ARRAYS
    assert all(array.shape == (8, 4) for array in record.arrays.values())
    advantages = np.array([s["advantage"] for s in record.samples], np.float32)
    np.testing.assert_allclose(advantages.reshape(2, 4).sum(1), 0, atol=1e-5)
    credit = record.arrays["credit"]
    np.testing.assert_allclose(credit.mean(1), 1, atol=1e-5)
    np.testing.assert_allclose(
        record.arrays["token_advantages"], advantages[:, None] * credit, atol=1e-6
    )
    # k3 of d = negative - positive: e^d - d - 1
    signed = record.signed_contrast()
    assert signed is not None
    np.testing.assert_allclose(
        record.arrays["contrast"], np.minimum(np.exp(-signed) + signed - 1, 10), atol=1e-4
    )
    order = np.argsort(record.arrays["contrast"], axis=1)
    ranked = np.take_along_axis(credit, order, 1)
    assert (np.diff(ranked, axis=1) >= 0).all()  # more contrast, more credit


def test_the_kept_samples_are_those_that_the_step_trained_on(tmp_path: Path) -> None:
    # all groups kept: the mean of their rewards is the step's
    run = trained(tmp_path, log={"groups": 2, "probes": 0})
    for step in run.steps():
        samples = run.step(step).samples
        assert len(samples) == 8 and not any(s["probe"] for s in samples)
        line = run.metrics()[step - 1]
        assert np.mean([s["reward"] for s in samples]) == pytest.approx(line["reward"], abs=1e-6)


def test_probes_come_back_with_the_same_noise_at_every_kept_step(tmp_path: Path) -> None:
    # at a rate that changes no token, equal noise gives equal tokens
    run = trained(tmp_path, optim={"lr": 1e-12}, log={"probes": 2})
    kept = [run.step(step) for step in run.steps()]
    assert len(kept) == 3
    probes = [
        (
            [s["prompt"] for s in record.samples if s["probe"]],
            record.arrays["tokens"][[s["probe"] for s in record.samples]].tolist(),
        )
        for record in kept
    ]
    assert probes[0] == probes[1] == probes[2]
    assert len(set(probes[0][0])) == 2 and len(probes[0][1]) == 8
    others = [record.arrays["tokens"][:4].tolist() for record in kept]
    assert others[0] != others[1] != others[2]


def test_probes_move_with_the_policy(tmp_path: Path) -> None:
    run = trained(tmp_path, optim={"lr": 3e-2})
    first, last = (run.step(step).arrays["tokens"][4:] for step in (1, 6))
    assert (first != last).any()


def test_objects_of_the_shapes_world_come_with_boxes_and_masks(tmp_path: Path) -> None:
    run = trained(
        tmp_path,
        prompts={"source": "shapes", "tasks": ["counting"]},
        reward={"geneval": {"partial": True}, "toys:bright": {}},
        train={"steps": 1},
    )
    samples = run.step(1).samples
    assert all(s["spec"]["tag"] == "counting" for s in samples)
    assert all(isinstance(s["objects"], list) for s in samples)
    assert all(set(s["reward_parts"]) == {"geneval", "toys:bright"} for s in samples)
    for entry in (o for s in samples for o in s["objects"]):
        assert set(entry) == {"name", "color", "confidence", "box", "mask", "prompted"}
        assert decode_mask(entry["mask"]).shape == (16, 16)


def test_every_metric_is_explained_and_every_explanation_used(tmp_path: Path) -> None:
    run = trained(tmp_path, **EVERYTHING, train={"steps": 2})
    logged = set(run.metrics()[-1]) - {"step"}
    gold = {"rollout": {"gold": True}, "loss": {"ratio": "sequence"}}
    refresh = {"credit": {"name": "guidance_contrast", "refresh": True}}
    references = [{"text": p.text, "reference": "gold.png"} for p in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, references)))
    Image.new("RGB", (16, 16)).save(tmp_path / "gold.png")
    for i, sections in enumerate((EVERY_REWARD | refresh, gold)):
        other = trained(tmp_path, **sections, train={"steps": 1, "name": f"other{i}"})
        assert all(isinstance(value, float | int) for value in other.metrics()[-1].values())
        logged |= set(other.metrics()[-1]) - {"step"}
    wild = {name.removesuffix("*") for name in METRICS if name.endswith("*")}
    unexplained = {n for n in logged - set(METRICS) if not any(n.startswith(w) for w in wild)}
    assert unexplained == set()
    unused = {n for n in set(METRICS) - logged if not n.endswith("/*")}
    # credit truth is told where masks are known, as test_truth.py checks
    assert {n for n in unused if not n.startswith("truth/")} == set()
    assert all(any(n.startswith(w) for n in logged) for w in wild)
    table = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"| `{name}` |" in table for name in METRICS)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_trackers_write_below_the_run_folder(tmp_path: Path) -> None:
    run = trained(tmp_path, train={"trackers": ["tensorboard"], "steps": 2})
    files = [p for p in (run.path / "trackers").rglob("*tfevents*") if p.stat().st_size > 0]
    assert files
    assert not list(tmp_path.glob("*tfevents*")) and not list(Path.cwd().glob("*tfevents*"))


def test_a_held_out_reward_is_logged_and_never_trained_on(tmp_path: Path) -> None:
    heldout = {"toys:bright": {}, "toys:constant": {"heldout": True, "value": 0.25}}
    with_part = trained(tmp_path, reward=heldout, train={"name": "with"})
    without = trained(tmp_path, train={"name": "without"})
    for a, b in zip(timeless(with_part), timeless(without), strict=True):
        assert a.pop("heldout/toys:constant") == 0.25 and a.pop("heldout_falls") == 0
        assert a == b
    sample = with_part.step(3).samples[0]
    assert sample["reward_parts"]["toys:constant"] == 0.25
    assert sample["reward"] == sample["reward_parts"]["toys:bright"]


def test_normalised_parts_are_kept_as_they_are_and_as_they_count(tmp_path: Path) -> None:
    run = trained(tmp_path, **EVERY_REWARD, train={"steps": 3}, log={"groups": 2, "probes": 0})
    for sample in run.step(3).samples:
        raw, normalized = sample["reward_parts"], sample["reward_normalized"]
        assert set(normalized) == {"toys:lit", "toys:bright"} and set(raw) - set(normalized)
        assert raw["toys:lit"] in (0.0, 1.0)
        # the reward is the weighted sum of the parts as they are
        assert sample["reward"] == pytest.approx(raw["toys:lit"] + 0.5 * raw["toys:bright"])
    line = run.metrics()[-1]
    assert line["reward_normalized/toys:bright"] == pytest.approx(0, abs=1e-6)
    assert line["samples"] >= 3 * 8 and line["rounds"] >= 1
    groups = np.array([s["reward_normalized"]["toys:bright"] for s in run.step(3).samples])
    np.testing.assert_allclose(groups.reshape(-1, 4).sum(1), 0, atol=1e-5)


def test_a_falling_held_out_reward_is_said_and_marked(tmp_path: Path) -> None:
    # at this rate brightness rises for sure, and its opposite is held out
    lines: list[str] = []
    config = recipe(
        tmp_path,
        reward={"toys:bright": {}, "toys_again:bright": {"heldout": True, "sign": -1.0}},
        prompts={"per_step": 4},
        train={"steps": 40, "checkpoint_every": 100},
        log={"samples_every": 100, "probes": 0},
    )
    sys.modules["toys_again"] = sys.modules["toys"]  # a reward has one entry for each name
    try:
        run = RunReader(api.train(config, warn=lines.append))
    finally:
        del sys.modules["toys_again"]
    falls = [line["heldout_falls"] for line in run.metrics()]
    assert falls == [0.0] * 39 + [1.0]
    told = (
        "step 40: over the last 40 steps the reward rose while held-out toys_again:bright fell by"
    )
    assert [line.startswith(told) for line in lines if "held-out" in line] == [True]


# Forward passes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "passes"),
    [
        # two cached decode rows; the policy's pass has one branch, or two if it is the guided one
        ({"loss": {"policy": "conditional"}}, 2 + 1),
        ({"loss": {"policy": "guided"}}, 2 + 2),
        ({"loss": {"policy": "conditional", "kl_coef": 0.1}}, 2 + 1 + 1),
        ({"loss": {"policy": "guided", "kl_coef": 0.1}}, 2 + 2 + 2),
        # contrast comes from the decode rows for nothing, unless it is to be that of the update
        ({"loss": {"policy": "conditional"}, "credit": {"name": "guidance_contrast"}}, 2 + 1),
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "guidance_contrast", "refresh": True},
            },
            2 + 1 + 1,
        ),
        ({"credit": {"name": "guidance_contrast", "refresh": True}}, 2 + 2),
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "top_entropy", "refresh": True},
            },
            2 + 1,
        ),
        # a reference for the credit, in the policy's form; with a KL term it is asked twice
        (
            {"loss": {"policy": "conditional"}, "credit": {"name": "distribution_guided"}},
            2 + 1 + 1,
        ),
        ({"credit": {"name": "distribution_guided"}}, 2 + 2 + 2),
        (
            {"credit": {"name": "distribution_guided"}, "loss": {"kl_coef": 0.1}},
            2 + 2 + 2 + 2,
        ),
        # of both branches at once, in a pass of its own
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "guidance_contrast", "kind": "full_kl", "refresh": True},
            },
            2 + 1 + 2,
        ),
        # one pass of the reference serves the credit and the KL term
        (
            {
                "credit": {"name": "critical_tokens"},
                "loss": {"kl_coef": 0.1, "kl_weight": "credit"},
            },
            2 + 2 + 2,
        ),
        ({"credit": {"name": "similarity"}}, 2 + 2),
        # without guidance there is one branch, unless the credit wants the other
        ({"rollout": {"cfg_scale": 1.0}}, 1 + 1),
        ({"rollout": {"cfg_scale": 1.0}, "credit": {"name": "guidance_contrast"}}, 2 + 1),
        # several updates on the same samples
        ({"loss": {"updates_per_rollout": 3}}, 2 + 3 * 2),
        ({"loss": {"updates_per_rollout": 3, "old": "recompute"}}, 2 + 2 + 3 * 2),
        ({"train": {"micro_batch_size": 3}}, 2 + 2),
        ({"rollout": {"batch_size": 3}}, 2 + 2),
    ],
)
def test_a_step_runs_the_forward_passes_that_the_plan_counts(
    tmp_path: Path, sections: dict[str, dict[str, Any]], passes: int
) -> None:
    rollout = {"cfg_scale": 2.0, **sections.get("rollout", {})}
    config = recipe(
        tmp_path,
        **{**sections, "rollout": rollout},
        log={"samples_every": 100, "probes": 0},
    )
    config["train"] |= {"steps": 3, "checkpoint_every": 100}
    parts = api.prepare(parse_config(config))
    assert passes_needed(parts.config, parts.credit).total == passes
    held = config.get("loss", {}).get("kl_coef", 0) > 0
    needy = ("distribution_guided", "critical_tokens")
    held = held or config.get("credit", {}).get("name") in needy
    assert (parts.reference is not None) == held

    seen: list[int] = []
    for model in (parts.model, parts.reference):
        if model is not None:
            model.image_embedding.register_forward_hook(
                lambda _, inputs, output: seen.append(inputs[0].numel())
            )
    at: list[int] = []
    api.run_training(
        parts, resume=False, report=lambda step, metrics: at.append(sum(seen)), warn=silent
    )
    # step 2 keeps no samples; of the 4 tokens of 8 images the last one is never read
    assert (at[1] - at[0]) / (8 * 3) == passes
