"""From a configuration to a run and back to a model, and what the command line says when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import write_tiny_janus
from toys import PROMPTS, recipe

import t2i_credit
from t2i_credit import api, errors
from t2i_credit.cli.commands import main
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.errors import ConfigError, ModelError, PromptError, RunError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.bench.plan import plan as plan_of
from t2i_credit.prompts.files import save_prompts
from t2i_credit.run_folder.checkpoint import load_checkpoint
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml

PLUGIN = '''
import torch

def red(*, limit: float = 0.5):
    """The share of pixels with a large red value."""
    def reward(images, prompts):
        assert images.dim() == 4 and len(prompts) == len(images)
        return (images[:, 0] > limit).float().mean((1, 2))
    return reward

def first_token(fields, mask, advantages, *, share: float = 0.5):
    """The first token matters most."""
    rest = (1 - share) * mask.shape[1] / (mask.shape[1] - 1)
    credit = torch.full(mask.shape, rest)
    credit[:, 0] = share * mask.shape[1]
    return credit

def best_only(rewards, group_size, *, bonus: float = 1.0):
    """The best of each group."""
    groups = rewards.unflatten(0, (-1, group_size))
    return (bonus * (groups == groups.amax(1, keepdim=True)).float()).flatten()
'''


def config_of(folder: Path, **sections: Mapping[str, Any]) -> Any:
    return parse_config(recipe(folder, **sections))


# Training and loading ---------------------------------------------------------------------------------------------


def test_train_takes_a_mapping_a_config_or_a_file_and_gives_the_run_folder(tmp_path: Path) -> None:
    one = {"steps": 1, "checkpoint_every": 1}
    by_mapping = t2i_credit.train(recipe(tmp_path, train={**one, "name": "mapping"}))
    by_config = api.train(config_of(tmp_path, train={**one, "name": "config"}))
    file = tmp_path / "file.yaml"
    file.write_text(write_yaml(recipe(tmp_path, train=one)))
    by_file = api.train(str(file), ["train.name=file", "optim.lr=1e-3"])
    paths = [by_mapping, by_config, by_file]
    assert paths == [tmp_path / "runs" / name for name in ("mapping", "config", "file")]
    rates = [RunReader(path).metrics()[0]["lr"] for path in paths]
    assert rates == [1e-2, 1e-2, 1e-3]
    assert RunReader(by_file).config()["optim"]["lr"] == 1e-3


def test_a_users_own_reward_credit_and_advantage_are_named_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plugins.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    path = api.train(
        recipe(
            tmp_path,
            reward={"my_plugins:red": {"limit": 0.4, "weight": 3.0}},
            credit={"name": "my_plugins:first_token", "share": 0.7},
            advantage={"name": "my_plugins:best_only", "bonus": 2.0},
            train={"steps": 1},
        )
    )
    record = RunReader(path).step(1)
    # 0.7 of the credit of four tokens, and 0.3 of it over the other three
    assert record.arrays["credit"][0].tolist() == pytest.approx([2.8, 0.4, 0.4, 0.4])
    assert {s["advantage"] for s in record.samples} <= {0.0, 2.0}
    for sample in record.samples:
        assert sample["reward"] == pytest.approx(3 * sample["reward_parts"]["my_plugins:red"])
    with pytest.raises(ConfigError, match=r"reward\.my_plugins:red\.limit.*'low'"):
        api.prepare(config_of(tmp_path, reward={"my_plugins:red": {"limit": "low"}}))


def test_a_run_is_loaded_as_the_model_of_its_newest_or_any_kept_checkpoint(tmp_path: Path) -> None:
    path = api.train(recipe(tmp_path, train={"steps": 4, "checkpoint_every": 2}))
    for name, step in ((str(path), 4), (f"{path}@2", 2), (path, 4)):
        model = t2i_credit.load_model(name)
        saved = load_checkpoint(path / "checkpoints", step).model_state
        assert saved is not None
        parameters = dict(model.named_parameters())
        assert all(torch.equal(tensor, parameters[key]) for key, tensor in saved.items())
        assert not model.training
    with pytest.raises(RunError, match="no checkpoint of step 3; there are "):
        api.load_model(f"{path}@3")


def test_a_run_can_begin_at_another_runs_checkpoint(tmp_path: Path) -> None:
    first = api.train(recipe(tmp_path, train={"steps": 2, "name": "first"}))
    one = {"steps": 1, "name": "second"}
    second = api.train(recipe(tmp_path, model={"name": str(first)}, optim={"lr": 1e-12}, train=one))
    before, after = (dict(api.load_model(p).named_parameters()) for p in (first, second))
    base = dict(api.load_model(tmp_path / "model").named_parameters())
    name = "image_head.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-9, rtol=0)
    assert (after[name] - base[name]).abs().max() > 1e-3


def test_a_run_without_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    path = api.train(recipe(tmp_path, train={"steps": 1}))
    (path / "checkpoints" / "000001").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="there is no checkpoint here"):
        api.load_model(path)


def test_a_run_whose_configuration_lost_the_model_is_refused(tmp_path: Path) -> None:
    path = api.train(recipe(tmp_path, train={"steps": 1}))
    (path / "config.yaml").write_text("train: {steps: 1}\n")
    with pytest.raises(RunError, match=r"config\.yaml: model\.name: missing"):
        api.load_model(path)


# Preparing and planning -------------------------------------------------------------------------------------------


def test_no_reference_is_held_unless_the_kl_term_or_the_credit_needs_one(tmp_path: Path) -> None:
    assert api.prepare(config_of(tmp_path)).reference is None
    for sections in ({"loss": {"kl_coef": 0.1}}, {"credit": {"name": "distribution_guided"}}):
        parts = api.prepare(config_of(tmp_path, **sections))
        assert parts.reference is not None and parts.reference is not parts.model
        assert not any(p.requires_grad for p in parts.reference.parameters())
        assert any(p.requires_grad for p in parts.model.parameters())


def test_preparing_writes_nothing_and_the_plan_says_what_will_be_done(tmp_path: Path) -> None:
    parts = api.prepare(config_of(tmp_path))
    plan = plan_of(parts)
    assert not (tmp_path / "runs").exists()
    assert plan["samples per step"] == 8 and plan["samples"] == 48 and plan["steps"] == 6
    assert plan["image tokens"] == "4 (2 x 2), 32 codes"
    assert plan["reference model"] == "none" and plan["forward passes per token"] == 4
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    assert plan["parameters trained"] == trained


@pytest.mark.parametrize(
    ("sections", "error", "said"),
    [
        ({"reward": {"geneval": {}}}, PromptError, "no spec; the geneval reward needs"),
        ({"reward": {"nothing": {}}}, ConfigError, "reward: unknown name 'nothing'"),
        ({"reward": {"toys:bright": {"abov": 1}}}, ConfigError, "did you mean reward.toys:bright"),
        ({"reward": {"no_such_module:x": {}}}, ConfigError, "no_such_module cannot be imported"),
        ({"prompts": {"per_step": 5}}, ConfigError, "prompts.per_step: 5 is not allowed; the set"),
        ({"prompts": {"source": "none.jsonl"}}, PromptError, "none.jsonl: no such prompt file"),
        ({"prompts": {"tasks": ["colors"]}}, PromptError, "no prompt of these tasks"),
        ({"model": {"name": "nowhere"}}, ModelError, "model 'nowhere': no such folder"),
        ({"rollout": {"group_size": 1}}, ConfigError, "rollout.group_size: value 1 is not"),
        ({"train": {"trackers": ["wandb"]}}, ConfigError, "train.trackers: 'wandb' is not inst"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line_before_a_run_folder_exists(
    tmp_path: Path, sections: dict[str, Any], error: type[UserError], said: str
) -> None:
    if said.startswith("train.trackers") and _installed("wandb"):
        pytest.skip("wandb is installed here")
    with pytest.raises(error) as caught:
        api.train(recipe(tmp_path, **sections))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def _installed(tracker: str) -> bool:
    from accelerate.tracking import get_available_trackers

    return tracker in {str(name) for name in get_available_trackers()}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is what the format is meant for")
def test_bfloat16_without_a_gpu_is_planned_and_trained_with_a_warning(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"model": {"dtype": "bfloat16"}, "loss": {"ratio_guard": None}}
    plan = plan_of(api.prepare(config_of(tmp_path, **sections)))
    assert plan["warning"].startswith("model.dtype: bfloat16 is meant for a GPU")
    said: list[str] = []
    run = api.train(recipe(tmp_path, **sections, train={"steps": 1}), warn=said.append)
    assert plan["warning"] in said and RunReader(run).metrics()[0]["grad_norm"] > 0
    assert "warning" not in plan_of(api.prepare(config_of(tmp_path)))


@pytest.mark.parametrize("size", ["1b", "7b"])
@pytest.mark.parametrize("method", ["grpo", "gcpo"])
def test_the_recipes_for_janus_are_planned_as_shipped_on_a_small_one(
    tmp_path: Path, size: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "t2i_credit.measure.bench.plan.ENOUGH", 0.0
    )  # the first slice is large enough here
    folder = write_tiny_janus(tmp_path / "janus")
    save_prompts([Prompt(f"{n} red circle") for n in range(8)], tmp_path / "prompts.jsonl")
    given = [f"model.name={folder}", f"prompts.source={tmp_path / 'prompts.jsonl'}"]
    config = load_config(f"janus-pro-{size}/{method}", [*given, "reward={toys:bright: {}}"])
    plan = plan_of(api.prepare(config))
    adapter = size == "1b"
    assert plan["reference model"] == ("adapter off" if adapter else "held")
    assert ("warning" in plan) == (adapter and not torch.cuda.is_available())
    assert plan["forward passes per token"] == 4  # conditional, with a reference


def test_mixed_precision_in_bfloat16_trains_on_the_cpu(tmp_path: Path) -> None:
    config = recipe(tmp_path, train={"precision": "bf16", "steps": 2}, loss={"ratio_guard": None})
    path = api.train(config)
    metrics = RunReader(path).metrics()
    assert all(line["grad_norm"] > 0 and line["ratio_max"] == 1 for line in metrics)
    after = api.train(recipe(tmp_path, train={"steps": 1, "name": "float32"}))
    rough, exact = (run.step(1).arrays for run in (RunReader(path), RunReader(after)))
    # before the first token both saw the same prompts; 8 bits of mantissa are good for two digits
    first = {name: arrays["entropy"][:, 0] for name, arrays in (("rough", rough), ("exact", exact))}
    assert 1e-6 < abs(first["rough"] - first["exact"]).max() < 0.1


# The command line -------------------------------------------------------------------------------------------------


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of t2i-credit."""
    monkeypatch.setattr(sys, "argv", ["t2i-credit", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(write_yaml(recipe(tmp_path, train={"steps": 2})))
    return file


def test_train_says_where_the_run_is_and_a_second_start_offers_resume(
    tmp_path: Path,
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = command(monkeypatch, capsys, "train", recipe_file)
    run = tmp_path / "runs" / "run"
    assert code == 0 and f"run folder: {run}" in out
    code, _, err = command(monkeypatch, capsys, "train", recipe_file)
    assert code == 2
    assert err == (
        f"error: {run}: this run exists: continue it with --resume, or choose another name\n"
    )
    code, _, _ = command(monkeypatch, capsys, "train", recipe_file, "--resume", "train.steps=3")
    assert code == 0
    assert len(RunReader(run).metrics()) == 3


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path,
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = command(monkeypatch, capsys, "train", recipe_file, "--dry-run")
    assert code == 0 and "forward passes per token" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "train.name=other"], "not a run folder (no environment.json in it)"),
        (["rollout.group_size=1"], "rollout.group_size: value 1 is not allowed; at least 2"),
        (["optim.learning_rate=1"], "optim.learning_rate: unknown key; did you mean optim.lr?"),
        (["model.name=nowhere"], "model 'nowhere': no such folder"),
        (["model.name=torch:relu"], "model.name: cannot be called as torch:relu(): "),
        (["nonsense"], "write key=value"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    code, _, err = command(monkeypatch, capsys, "train", recipe_file, *arguments)
    assert code == 2
    assert err.startswith("error: ") and said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, UserError)]
)
def test_every_error_for_users_ends_as_one_line(
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[UserError],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise kind("that does not work; do this")

    for place in ("parts.prepare", "launch.run_training"):
        with monkeypatch.context() as patch:
            patch.setattr(f"t2i_credit.api.{place}", refuse)
            code, _, err = command(patch, capsys, "train", recipe_file)
        assert (code, err) == (2, "error: that does not work; do this\n")


def test_a_full_disk_is_one_line_on_the_command_line(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = command(monkeypatch, capsys, "train", recipe_file)
    assert code == 2
    assert err.startswith("error: ") and err.endswith(
        "cannot be written: No space left on device\n"
    )
    assert err.count("\n") == 1


def test_our_own_mistakes_keep_their_traceback(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("t2i_credit.api.parts.prepare", fail)
    monkeypatch.setattr(sys, "argv", ["t2i-credit", "train", str(recipe_file)])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_an_interrupted_run_ends_with_code_130_and_can_be_resumed(
    tmp_path: Path,
    recipe_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("t2i_credit.training.trainer.Trainer._save", interrupt)
        code, _, _ = command(patch, capsys, "train", recipe_file)
    run = RunReader(tmp_path / "runs" / "run")
    assert code == 130 and run.status().state == "stopped"
    code, _, _ = command(monkeypatch, capsys, "train", recipe_file, "--resume")
    assert code == 0 and run.status().state == "finished"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "CONFIG"),
        (["train", "shapes/gcpo", "--nothing"], "--nothing"),
        (["nothing"], "nothing"),
        (["sample", "shapes", "a red circle", "--count", "many"], "--count"),
    ],
)
def test_wrong_usage_is_a_few_lines_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    code, _, err = command(monkeypatch, capsys, *arguments)
    assert code == 2 and said in err
    assert len(err.splitlines()) <= 5 and "Traceback" not in err


def test_prompts_of_an_own_file_get_the_negative_of_the_configuration(tmp_path: Path) -> None:
    save_prompts(PROMPTS, tmp_path / "some.jsonl")
    source = {"source": str(tmp_path / "some.jsonl")}
    own = api.load_prompt_set(config_of(tmp_path, prompts=source))
    assert [p.negative for p in own] == [None, None, "a red circle", ""]
    same = api.load_prompt_set(config_of(tmp_path, prompts={**source, "negative": "a square"}))
    assert [p.negative for p in same] == ["a square"] * 4
