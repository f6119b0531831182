"""`train` on a text world: from a recipe to a run folder with metrics, answers with their credit, and the trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the pip extra text")

import torch
from repository import ROOT
from tiny_texts import write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from t2i_credit.cli.commands import app
from t2i_credit.config.text import load_text_config
from t2i_credit.errors import ConfigError, UserError
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.text.record import renamed
from t2i_credit.text.run import prepare_text
from t2i_credit.training.metrics import METRICS, TEXT_METRICS

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


def small(model: Path, folder: Path, *more: str) -> list[str]:
    """Overrides for a run of two steps on a random model."""
    return [
        f"model.name={model}",
        f"train.out={folder}",
        "train.name=run",
        "train.steps=2",
        "prompts.count=20",
        "grpo.per_device_train_batch_size=8",
        "grpo.num_generations=4",
        "log.samples_every=5",
        "log.groups=1",
        *more,
    ]


def invoke(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def parts(overrides: Sequence[str] = (), recipe: str = "arithmetic/gcpo") -> Any:
    found = load_text_config(recipe, overrides)
    assert found is not None
    return prepare_text(*found)


def test_a_recipe_becomes_a_run_folder(model: Path, tmp_path: Path) -> None:
    printed = invoke("train", "arithmetic/gcpo", *small(model, tmp_path))
    assert f"run folder: {tmp_path / 'run'}" in printed and "'loss'" not in printed
    reader = RunReader(tmp_path / "run")
    rows = reader.metrics()
    assert [row["step"] for row in rows] == [1, 2] and reader.status().state == "finished"
    for row in rows:
        assert set(row) - {"step", "reward/correct"} <= set(METRICS) | set(TEXT_METRICS)
        assert row["credit_max"] >= 1 and "signed_contrast" in row and row["time/step"] > 0
    assert reader.steps() == [1, 2]  # the first and the last
    samples = reader.samples(2)
    assert len(samples) == 4
    for sample in samples:
        length = len(sample["tokens"])
        lists = {
            "logprobs",
            "negative_logprobs",
            "contrast",
            "credit",
            "token_advantages",
            "entropy",
        }
        assert all(len(sample[name]) == length > 0 for name in lists)
        assert sample["negative"] == sample["prompt"].removesuffix(":") + ", answer wrongly:"
        assert sum(sample["credit"]) / length == pytest.approx(1, abs=1e-4)
    words = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    start = AutoModelForCausalLM.from_pretrained(model)
    assert len(words) == trained.config.vocab_size
    assert trained.state_dict().keys() == start.state_dict().keys()
    files = [path.name for path in (tmp_path / "run").rglob("*")]
    assert not any(name.endswith((".bin", ".pt")) for name in files)  # no pickle


def test_the_credit_of_a_run_becomes_a_page(model: Path, tmp_path: Path) -> None:
    invoke("train", "arithmetic/dgpo", *small(model, tmp_path, "train.steps=1"))
    page = tmp_path / "run" / "heatmaps" / "000001" / "tokens.html"
    assert str(page) in invoke("heatmap", str(tmp_path / "run")).replace("\n", "")
    assert 'class="pill"' in page.read_text()
    with pytest.raises(UserError, match="is a run on text, which has no images"):
        RunReader(tmp_path / "run").step()


def test_gold_joins_every_group_of_a_model_that_knows_nothing(model: Path, tmp_path: Path) -> None:
    before = AutoModelForCausalLM.from_pretrained(model).state_dict()
    invoke("train", "arithmetic/gold", *small(model, tmp_path, "grpo.learning_rate=1e-2"))
    reader = RunReader(tmp_path / "run")
    assert [(row["gold"], row["reward"]) for row in reader.metrics()] == [(2, 0), (2, 0)]
    golden = [sample for sample in reader.samples(1) if sample["gold"]]
    assert [sample["index"] for sample in golden] == [3] and golden[0]["reward"] == 1
    assert "#" in golden[0]["completion"]  # a chain with its answer
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_a_cut_off_answer_that_the_loss_leaves_out_keeps_its_text(
    model: Path, tmp_path: Path
) -> None:
    cut = ["grpo.mask_truncated_completions=true", "grpo.max_completion_length=5", "train.steps=1"]
    invoke("train", "arithmetic/gcpo", *small(model, tmp_path, *cut))
    samples = RunReader(tmp_path / "run").samples(1)
    left_out = [sample for sample in samples if not any(sample["credit"])]
    assert left_out
    for sample in left_out:
        assert len(sample["tokens"]) == len(sample["logprobs"]) == len(sample["credit"]) == 5
        assert sample["completion"] and not any(sample["token_advantages"])
    page = tmp_path / "run" / "heatmaps" / "000001" / "tokens.html"
    assert str(page) in invoke("heatmap", str(tmp_path / "run")).replace("\n", "")
    tokens = sum(len(sample["tokens"]) for sample in samples)
    assert page.read_text().count('class="pill"') >= tokens  # theirs among them


def test_a_dry_run_prints_the_plan_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    printed = invoke("train", "arithmetic/gcpo", *small(model, tmp_path), "--dry-run")
    assert "guidance_contrast" in printed and not list(tmp_path.iterdir())


def test_config_prints_a_recipe_for_text() -> None:
    printed = invoke("config", "arithmetic/gcpo", "credit.kind=abs")
    assert "kind: abs" in printed and "loss_type: grpo" in printed


def test_the_page_of_metrics_explains_those_of_text() -> None:
    table = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"| `{name}` | {said} |" in table for name, said in TEXT_METRICS.items())


def test_metrics_of_gold_leave_the_references_out() -> None:
    logs = {"loss": 1.0, "reward": 0.25, "reward_sampled": 0.0, "rewards/correct/mean": 0.25}
    assert renamed(logs) == {"loss": 1.0, "reward": 0.0}
    assert renamed({"reward": 0.5, "rewards/correct/mean": 0.5})["reward/correct"] == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["grpo.learning_rat=1"],
            "command line: grpo.learning_rat: unknown key; did you mean grpo.learning_rate?",
        ),
        (
            ["grpo.learning_rate=fast"],
            "command line: grpo.learning_rate: value 'fast' is not allowed",
        ),
        (
            ["grpo.max_steps=3"],
            "command line: grpo.max_steps: is not for trl here; use train.steps",
        ),
        (["grpo.num_generations=1"], "recipe arithmetic/gcpo: grpo"),
        (
            ["grpo.loss_type=luspo"],
            "command line: grpo.loss_type: 'luspo' is refused with credit.name",
        ),
        (
            ["credit.name=uniform", "grpo.loss_type=foo"],
            "command line: grpo.loss_type: value 'foo' is not allowed; one of grpo, bnpo,",
        ),
        (
            ["grpo.importance_sampling_level=word"],
            "command line: grpo.importance_sampling_level: value 'word' is not allowed; one of token,",
        ),
        (["grpo.use_vllm=true"], "command line: grpo.use_vllm: true needs vllm, which is not"),
        (
            ["prompts.count=7"],
            "command line: prompts.count: value 7 is not allowed; at least 16, the problems of a step",
        ),
        (["prompts.negative=' '"], "command line: prompts.negative: suffix ' ' leaves the prompt"),
        (["credit.name=similarity"], "command line: credit.name: 'similarity' is refused for text"),
        (["rollout.gold=true"], "command line: rollout.gold: is refused with credit.name"),
    ],
)
def test_a_mistake_dies_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parts(["model.name=/nowhere", *overrides])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_run_that_is_not_there_cannot_be_resumed_and_one_that_is_there_is_not_overwritten(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="run: not a run folder"):
        invoke("train", "arithmetic/gcpo", "--resume", *small(model, tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="exists and is not a run folder"):
        invoke("train", "arithmetic/gcpo", *small(model, tmp_path))


def test_a_missing_model_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        invoke("train", "arithmetic/gcpo", *small(tmp_path / "nowhere", tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_run(model: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        invoke("train", "arithmetic/grpo", *small(model, tmp_path, f"train.name={name}"))
        rows = RunReader(tmp_path / name).metrics()
        found.append([{k: v for k, v in row.items() if k != "time/step"} for row in rows])
    assert json.dumps(found[0]) == json.dumps(found[1])
