"""A critic beside a training: it learns what decides the reward, is believed when it does, and hurts nobody until then."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from repository import SUPPORT
from toys import PROMPTS, WideConfig, recipe, tiny_model
from training_runs import assert_same_run, silent, stop_at, timeless, trained

from t2i_credit import api
from t2i_credit.advantages import group_normalized
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ConfigError, RunError
from t2i_credit.interfaces import Rollout
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.run_folder.checkpoint import load_checkpoint
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.critic.critic import Critic
from t2i_credit.training.critic.replay import Batch, Replay
from t2i_credit.training.critic.values import others_mean

VALUE = {"credit": {"name": "value"}, "critic": {"kind": "copy", "width": 16, "updates": 3}}


def critic_of(model: Any, **keys: Any) -> Critic:
    critic = {"kind": "copy", "width": 32, "step_size": 2e-3, **keys}
    config = parse_config({"credit": {"name": "value"}, "critic": critic})
    return Critic(
        config, model, accelerator=Accelerator(cpu=True), advantage=group_normalized, warn=silent
    )


def drawn(model: Any, seed: int) -> tuple[Rollout, torch.Tensor]:
    """Images whose reward the third of their six tokens decides alone."""
    rollout = sample_rollout(
        model, PROMPTS, group_size=8, cfg_scale=1.0, temperature=3.0, seed=seed
    )
    return rollout, (rollout.tokens[:, 2] < 16).float()


def test_it_begins_at_the_group_baseline_and_pushes_nothing() -> None:
    model = tiny_model(WideConfig)
    rollout, rewards = drawn(model, 0)
    found = critic_of(model).valued(rollout, rewards)
    baseline = others_mean(rewards, 8).clamp(1 / 16, 15 / 16)
    torch.testing.assert_close(found.values, baseline[:, None].expand(32, 7))
    assert (found.value_advantage == 0).all()


@pytest.fixture
def taught(lesson: Any) -> Any:
    """The lesson, whose accelerator the tests before may have ended."""
    lesson[1].accelerator = Accelerator(cpu=True)
    return lesson


@pytest.fixture(scope="module")
def lesson() -> tuple[Any, Critic, list[dict[str, float]]]:
    """A critic that has seen 40 batches, and its metrics."""
    model = tiny_model(WideConfig)
    critic = critic_of(model)
    told = []
    for step in range(1, 41):
        rollout, rewards = drawn(model, step)
        told.append(critic.learn(step, critic.valued(rollout, rewards), rewards))
    return model, critic, told


def test_it_comes_to_know_the_token_that_decides_and_is_believed_by_then(taught: Any) -> None:
    model, critic, told = taught
    assert told[0]["critic/weight"] == told[1]["critic/weight"] == 0.0
    assert abs(told[0]["critic/explained"]) < 0.05  # as the group's mean, before it has learned
    last = told[-1]
    assert last["critic/weight"] > 0.5 and 0.6 < last["critic/calibration"] < 1.5
    assert last["critic/explained/25"] < 0.2  # after one token of six nothing is known yet
    assert min(last[f"critic/explained/{q}"] for q in (50, 75, 100)) > 0.5
    assert last["critic/images"] == 20 * 32 and last["critic/loss"] < told[0]["critic/loss"]
    rollout, rewards = drawn(model, 1000)
    found = critic.valued(rollout, rewards)
    moved = found.values.diff(dim=1)
    assert (moved.abs().mean(0).argmax()) == 2
    assert float(((moved[:, 2] > 0) == (rewards > 0)).float().mean()) > 0.9
    # in units of the advantage, as far as it is believed
    spread = rewards.unflatten(0, (-1, 8)).std(1).repeat_interleave(8, 0)
    expected = moved / (spread[:, None] + 1e-4) * critic.trust.weight
    expected[spread == 0] = 0
    torch.testing.assert_close(found.value_advantage, expected, rtol=1e-3, atol=1e-5)


def test_a_state_goes_on_as_if_nothing_had_happened(taught: Any) -> None:
    model, critic, _ = taught
    again = critic_of(model)
    again.load(copy.deepcopy({**critic.state(), **critic.weights()}), "here")
    for step in (41, 42):
        rollout, rewards = drawn(model, step)
        told = [one.learn(step, one.valued(rollout, rewards), rewards) for one in (critic, again)]
        assert told[0] == told[1]
    with pytest.raises(RunError, match=r"here: inner\.bias does not fit the section critic"):
        critic_of(model, width=8).load({**critic.state(), **critic.weights()}, "here")


def test_rewards_outside_of_the_range_are_told_once_and_count_as_its_ends() -> None:
    model = tiny_model(WideConfig)
    critic = critic_of(model, least=0.0, most=10.0)
    told: list[str] = []
    critic.warn = told.append
    found = critic.scaled(torch.tensor([-1.0, 5.0, 20.0]))
    assert found.tolist() == [0.0, 0.5, 1.0]
    critic.scaled(torch.tensor([-1.0]))
    assert len(told) == 1 and "rewards reach from -1 to 20" in told[0]


def test_the_latest_batches_are_replayed_whole_groups_at_a_time() -> None:
    replay = Replay(most=2)
    for number in range(3):
        tokens = torch.full((2, 3, 4), number, dtype=torch.int32)
        replay.add(Batch((f"a{number}", f"b{number}"), tokens, torch.full((2, 3), number / 3)))
    assert replay.images == 12 and [b.texts[0] for b in replay.batches] == ["a1", "a2"]
    found = replay.draw(3, seed=1)
    assert len(set(found.texts)) == 3
    for text, tokens, rewards in zip(found.texts, found.tokens, found.rewards, strict=True):
        assert (tokens == int(text[1])).all() and (rewards == int(text[1]) / 3).all()
    assert replay.draw(3, seed=1).texts == found.texts and len(replay.draw(9, seed=0)) == 4
    replay.add(Batch(("c",), torch.zeros(1, 5, 4, dtype=torch.int32), torch.zeros(1, 5)))
    assert [b.texts for b in replay.batches] == [("c",)]  # another group size


# Runs ---------------------------------------------------------------------------------------------------------------


def test_a_critic_that_is_never_believed_leaves_a_run_as_entropy_rank_has_it(
    tmp_path: Path,
) -> None:
    plain = trained(tmp_path, credit={"name": "entropy_rank"}, train={"name": "plain"})
    credit = {"name": "value"}
    critic = {"width": 16, "updates": 0}  # it learns nothing
    run = trained(tmp_path, credit=credit, critic=critic, train={"name": "value"})
    own = [{k: v for k, v in row.items() if "critic" not in k} for row in timeless(run)]
    assert own == timeless(plain)
    a, b = (load_checkpoint(r.path / "checkpoints").model_state for r in (plain, run))
    assert a is not None and b is not None and all(torch.equal(t, b[n]) for n, t in a.items())
    assert {row["critic/weight"] for row in run.metrics()} == {0.0}


@pytest.mark.parametrize("kind", ["head", "copy", "lora"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, kind: str) -> None:
    sections = {
        "credit": {"name": "value"},
        "critic": {"kind": kind, "width": 16, "rank": 2, "window": 3, "replay": 2},
        "rollout": {"dynamic": True, "max_rounds": 2},
        "reward": {"toys:lit": {"above": 0.45}},
        "tune": {"lora_rank": 2 if kind == "lora" else 0},
        "train": {"micro_batch_size": 3},
    }
    whole = trained(tmp_path, **{**sections, "train": {"micro_batch_size": 3, "name": "whole"}})
    broken = recipe(tmp_path, **sections)
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(5), warn=silent)
    left = RunReader(tmp_path / "runs" / "run")
    api.train(broken, resume=True, warn=lambda line: None)
    assert_same_run(left, whole)
    a, b = (load_checkpoint(run.path / "checkpoints").extra for run in (left, whole))
    assert a["critic"]["trust"] == b["critic"]["trust"] and len(a["critic"]["trust"]) == 3
    networks = [extra["critic_weights"]["network"] for extra in (a, b)]
    assert all(torch.equal(tensor, networks[1][name]) for name, tensor in networks[0].items())
    assert any(bool(tensor.any()) for name, tensor in networks[0].items() if "outer" in name)


def test_the_change_of_the_value_is_recorded_of_samples_and_probes(tmp_path: Path) -> None:
    run = trained(tmp_path, **VALUE)
    step = run.step(6)
    moved = step.arrays["value_change"]
    assert moved.shape == step.arrays["credit"].shape and (moved != 0).all(1).any()
    assert any(sample["probe"] for sample in step.samples)
    assert "value_change" not in trained(tmp_path, train={"name": "plain"}).step(6).arrays


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    # with eps 1 AdamW does not magnify rounding in small gradients
    sections = {**VALUE, "prompts": {"per_step": 3}, "optim": {"lr": 1.0, "eps": 1.0}}
    sections["critic"] = {"width": 16, "updates": 3}
    runs = {}
    for name in ("one", "two"):
        config = recipe(tmp_path, **sections, train={"steps": 3, "name": name})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        runs[name] = tmp_path / "runs" / name
    api.train(tmp_path / "one.yaml", warn=silent)
    launcher = "torch.distributed.run --standalone --nproc_per_node 2 -m t2i_credit.cli train"
    more = {"PYTHONPATH": str(SUPPORT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", *launcher.split(), str(tmp_path / "two.yaml")],
        env=os.environ | more,
        check=True,
        capture_output=True,
        timeout=600,
    )
    for one, two in zip(*(RunReader(run).metrics() for run in runs.values()), strict=True):
        for key, value in one.items():
            if "critic/" in key or key in ("reward", "loss"):
                assert two[key] == pytest.approx(value, rel=2e-2, abs=1e-3), key
    saved = [load_checkpoint(run / "checkpoints").extra for run in runs.values()]
    ours, theirs = (extra["critic_weights"]["network"] for extra in saved)
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-3, rtol=0, msg=name)


# Its file -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A folder with a toy model, the critic's file, and what was measured."""
    from t2i_credit.api.critic import fit_critic

    folder = tmp_path_factory.mktemp("fitted")
    told: list[tuple[str, int, int]] = []
    config = parse_config(recipe(folder, **VALUE))
    file = folder / "made" / "critic.safetensors"
    measured = fit_critic(
        config,
        file,
        batches=12,
        passes=3,
        report=lambda stage, done, of, values: told.append((stage, done, of)),
        warn=lambda line: None,
    )
    assert told == [
        ("sampling", 10, 12),
        ("sampling", 12, 12),
        *(("fitting", i, 3) for i in (1, 2, 3)),
    ]
    return folder, file, measured


def test_a_run_begins_with_a_fitted_critic(fitted: Any) -> None:
    folder, file, measured = fitted
    assert measured["images"] == 12 * 8 and measured["seconds"] > 0
    assert {"critic/explained", "critic/calibration", "critic/weight"} <= measured.keys()
    run = trained(folder, **{**VALUE, "critic": {**VALUE["critic"], "file": str(file)}})
    first = run.metrics()[0]
    assert first["critic/images"] == 13 * 8  # replayed, too
    assert run.step(1).arrays["value_change"].any()  # it knows something before its first update
    # a run that is resumed goes on with its own
    (folder / "runs" / "run" / "checkpoints" / "000006").rename(folder / "gone")
    api.train(
        recipe(folder, **{**VALUE, "critic": {**VALUE["critic"], "file": str(file)}}),
        resume=True,
        warn=lambda line: None,
    )
    assert len(run.metrics()) == 6


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"reward": {"toys:lit": {}}}, "was fitted to the reward"),
        ({"reward": {"toys:bright": {"above": 0.5}}}, "was fitted to the reward"),
        (
            {"critic": {"kind": "head", "width": 16}},
            "was fitted to critic.kind copy; this run has head",
        ),
        ({"critic": {"kind": "copy", "width": 8}}, "was fitted to critic.width 16; this run has 8"),
        ({"model": {"name": "shapes"}}, "was fitted to the weights of another model"),
    ],
    ids=["reward", "parameter", "kind", "width", "model"],
)
def test_a_critic_of_something_else_is_refused_before_anything_is_sampled(
    fitted: Any, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], message: str
) -> None:
    folder, file, _ = fitted
    critic = {**VALUE["critic"], **sections.get("critic", {}), "file": str(file)}
    config = recipe(folder, **{**VALUE, **sections, "critic": critic, "train": {"name": "never"}})
    monkeypatch.setattr("t2i_credit.training.collect.sample_rollout", None)
    with pytest.raises(ConfigError) as refused:
        api.train(config, warn=silent)
    assert str(refused.value).startswith(f"critic.file: {file}: {message}")
    assert "\n" not in str(refused.value) and not (folder / "runs" / "never").exists()


def test_a_damaged_file_and_what_is_no_critic_are_one_line(fitted: Any, tmp_path: Path) -> None:
    folder, file, _ = fitted
    whole = file.read_bytes()
    files = {
        "gone": (None, "no such file; t2i-credit fit-critic writes one"),
        "empty": (b"", "damaged: "),
        "cut": (whole[: len(whole) // 2], "damaged: "),
        "text": (b"a critic", "damaged: "),
        "marked": (whole.replace(b"t2i_credit_critic", b"t2i_credit_cricket"[:17]), "is no critic"),
        "newer": (
            whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'),
            "format 9; this t2i-credit reads 1",
        ),
    }
    for name, (content, message) in files.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        critic = {**VALUE["critic"], "file": str(path)}
        with pytest.raises(ConfigError, match=r"^critic\.file: ") as refused:
            api.prepare(parse_config(recipe(folder, **{**VALUE, "critic": critic})))
        assert f"{path}: {message}" in str(refused.value), name


def test_fit_critic_refuses_what_it_cannot_do_and_never_overwrites(fitted: Any) -> None:
    from t2i_credit.api.critic import fit_critic

    folder, file, _ = fitted
    config = parse_config(recipe(folder, **VALUE))
    before = file.read_bytes()
    for more, message in (
        ({"batches": 7}, "--batches: 7 is not allowed; at least 8"),
        ({"passes": 0}, "--passes: 0 is not allowed; at least 1"),
        ({"out": file}, f"--out: {file} is there already"),
    ):
        with pytest.raises(ConfigError) as refused:
            fit_critic(config, **{"out": folder / "other", **more})
        assert str(refused.value).startswith(message)
    named = parse_config(
        recipe(folder, **{**VALUE, "critic": {**VALUE["critic"], "file": str(file)}})
    )
    with pytest.raises(ConfigError, match=r"critic\.file: is what fit-critic writes"):
        fit_critic(named, folder / "other")
    assert file.read_bytes() == before and not (folder / "other").exists()


def test_any_recipes_critic_can_be_fitted(fitted: Any) -> None:
    from t2i_credit.api.critic import critic_config

    folder, _, _ = fitted
    config = critic_config(parse_config(recipe(folder)))
    assert config.credit.name == "value" and config.model.name == str(folder / "model")
    assert list(config.reward) == ["toys:bright"] and config.reward["toys:bright"].weight == 1
