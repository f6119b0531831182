"""Credit truth by name: what a run is compared with, and masks of real detectors on other generators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_checkpoints import write_tiny_janus
from tiny_detectors import write_mask2former, write_owlv2
from toys import PROMPTS, recipe
from typer.testing import CliRunner

from t2i_credit import api
from t2i_credit.api.models import load_model, measured_policy
from t2i_credit.api.objects import describe_as_rewarded, find_finder
from t2i_credit.api.parts import build_reward
from t2i_credit.cli.commands import app, main
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.errors import ConfigError, PromptError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.truth.command import truth_of
from t2i_credit.prompts.files import save_prompts
from t2i_credit.rewards import WeightedReward
from t2i_credit.rollout.sampling import sample_rollout

MOUSE = 64  # COCO's index of the class that GenEval calls computer mouse
NEEDS_REFERENCE = ("distribution_guided", "critical_tokens,fraction=0.3")
SMALL: dict[str, Any] = {"per_task": 2, "images": 2, "batches": 3}


def asking(name: str, **clause: Any) -> Prompt:
    spec = {"tag": "single_object", "include": [{"class": name, "count": 1, **clause}]}
    return Prompt(f"a photo of a {name}", spec=spec)


def written(folder: Path, prompts: Sequence[Prompt], **sections: Any) -> str:
    """The toy recipe of `toys.recipe` with these prompts, as a file."""
    found = recipe(folder, **sections)
    save_prompts(prompts, folder / "prompts.jsonl")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(found))
    return str(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """{kind: as --detector takes it} of tiny checkpoints; Mask2Former sees a computer mouse everywhere."""
    out = tmp_path_factory.mktemp("detectors")
    folders = {
        "mask2former": write_mask2former(out / "mask2former", only=MOUSE),
        "owlv2": write_owlv2(out / "owlv2"),
    }
    return {kind: f"{kind}@{folder}" for kind, folder in folders.items()}


# What a run is compared with --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["whole", "adapter"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with a checkpoint at the third, of all weights or of an adapter."""
    folder = tmp_path_factory.mktemp(request.param)
    tune = {"lora_rank": 2} if request.param == "adapter" else {}
    path = written(
        folder,
        [asking("computer mouse")] * 2,
        tune=tune,
        train={"steps": 3},
        optim={"lr": 3e-2},
    )
    return api.train(path, warn=lambda line: None)


def logprobs(model: Any, loaded: Any) -> torch.Tensor:
    """(4, 4) of fixed tokens; `loaded` encodes the prompts, which a switched-off adapter does not."""
    condition = loaded.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    tokens = torch.arange(16).view(4, 4)
    with torch.no_grad():
        return model(condition, tokens, want=["logprobs"])["logprobs"]


def test_a_run_is_compared_with_what_it_began_from(run: Path) -> None:
    config = load_config(str(run / "config.yaml"), [f"model.name={run}@3"])
    model, reference = measured_policy(config, compared=True)
    began = load_model(str(run.parents[1] / "model"))
    assert torch.allclose(logprobs(reference, model), logprobs(began, began), atol=1e-6)
    assert torch.equal(logprobs(model, model), logprobs(load_model(f"{run}@3"), model))
    assert not torch.allclose(logprobs(model, model), logprobs(began, began), atol=1e-3)
    assert any(p.requires_grad for p in model.parameters())
    assert measured_policy(config, compared=False)[1] is None


def test_a_model_of_no_run_is_its_own_reference(tmp_path: Path) -> None:
    model, reference = measured_policy(parse_config(recipe(tmp_path)), compared=True)
    assert reference is model


def test_credit_that_needs_a_reference_is_measured_on_a_run(
    run: Path, detectors: dict[str, str], tmp_path: Path
) -> None:
    found = truth_of(
        f"{run}@3",
        credits=NEEDS_REFERENCE,
        detector=detectors["mask2former"],
        measures=("localisation", "causality", "gradients"),
        out=tmp_path / "out",
        **SMALL,
    )
    for rows in (
        found["localisation"]["assigners"],
        found["causality"]["positive"]["kept"]["assigners"],
        found["gradients"]["assigners"],
    ):
        assert set(NEEDS_REFERENCE) < set(rows)
    # it is not uniform: the policy has left its reference
    guided = found["gradients"]["assigners"]["distribution_guided"]
    assert guided["snr_ahead"][0] != 0.0
    assert set(found["left_out"]) == set()


def test_before_training_only_what_is_uniform_then_is_left_out(
    detectors: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path, [asking("computer mouse")] * 2)
    arguments: dict[str, Any] = {"recipe": path, "out": tmp_path / "out", **SMALL}
    arguments |= {"detector": detectors["mask2former"], "measures": ("localisation",)}
    found = truth_of(str(tmp_path / "model"), **arguments)
    assert "critical_tokens" in found["localisation"]["assigners"]
    assert set(found["left_out"]) == {
        *("distribution_guided", "value"),
        *("reward_map", "reward_map,kind=signed"),
    }
    assert "critic.file=FILE" in found["left_out"]["value"]
    with pytest.raises(ConfigError, match="distribution_guided: the policy still equals"):
        truth_of(str(tmp_path / "model"), credits=["distribution_guided"], **arguments)


def test_two_batches_are_refused_by_the_option_itself(tmp_path: Path) -> None:
    words = ["truth", "shapes", "--batches", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "greater than or equal to 3" in done.output
    assert not (tmp_path / "out").exists()


# Masks of real detectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mask2former", "owlv2"])
def test_any_detector_gives_the_masks_of_any_generator(
    kind: str, detectors: dict[str, str], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    write_tiny_janus(tmp_path / "janus")
    # neither a colour nor another class stands in the way: nobody is asked for the colour
    prompts = [asking("computer mouse", color="red"), asking("computer mouse")]
    path = written(tmp_path, prompts)
    out = tmp_path / "out"
    words = f"truth {tmp_path}/janus --like {path} --detector {detectors[kind]} --threshold 0.1"
    words += f" --prompts 2 --images 2 --batches 3 --credit entropy_rank --out {out}"
    monkeypatch.setattr("sys.argv", ["t2i-credit", *words.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None), capsys.readouterr().err
    found = json.loads((out / "truth.json").read_text())
    assert found["detector"] == detectors[kind]
    assert found["localisation"]["samples"] > 0 and 0 < found["localisation"]["area"][0] < 1
    assert found["images"] == 4 and found["causality"]["positive"]["kept"]["changed"] > 0
    assert found["gradients"]["batches"] == 3
    assert found["specificity"] is None  # no prompt has two objects


def test_a_finder_keeps_what_the_verdict_looks_at_and_marks_what_the_prompt_names(
    detectors: dict[str, str], tmp_path: Path
) -> None:
    excluding = {"tag": "single_object", "include": [{"class": "cat", "count": 1}]}
    excluding["exclude"] = [{"class": "computer mouse", "count": 1}]
    prompts = [asking("computer mouse"), Prompt("a photo of a cat", spec=excluding)]
    kind, folder = detectors["mask2former"].split("@")
    reward = {"geneval": {"detector": kind, "model": folder, "max_objects": 1}}
    config = parse_config(recipe(tmp_path, reward=reward))
    rollout = sample_rollout(
        load_model(str(tmp_path / "model")), prompts, group_size=2, cfg_scale=2.0, seed=0
    )
    finder = find_finder(config)  # that of the reward, whose most confident object alone counts
    assert finder.name == f"{kind}@{folder}"
    finder.check(prompts)
    found = finder.describe(rollout)
    assert [len(objects) for objects in found] == [1] * 4
    for objects, prompted in zip(found, (True, True, False, False), strict=True):
        assert objects[0]["name"] == "computer mouse" and objects[0]["prompted"] is prompted
        assert objects[0]["mask"].shape == tuple(rollout.images.shape[-2:])
    live = describe_as_rewarded(config, build_reward(config))
    assert live is not None  # a run finds them by the detector that its reward has loaded
    for seen, objects in zip(live(rollout), found, strict=True):
        assert [(o["name"], o["box"]) for o in seen] == [(o["name"], o["box"]) for o in objects]
    assert describe_as_rewarded(config, WeightedReward({})) is None
    more = find_finder(config.model_copy(update={"reward": {}}), f"{kind}@{folder}")
    assert min(len(objects) for objects in more.describe(rollout)) > 1
    sure = find_finder(config, threshold=1.0)
    assert sure.describe(rollout) == [[], [], [], []]


def test_without_a_measure_that_asks_for_masks_no_detector_is_needed(tmp_path: Path) -> None:
    path = written(tmp_path, [asking("clock")] * 2)
    arguments: dict[str, Any] = {"recipe": path, "credits": ["entropy_rank"], **SMALL}
    found = truth_of(
        str(tmp_path / "model"), measures=("causality",), out=tmp_path / "out", **arguments
    )
    assert found["detector"] is None and "localisation" not in found
    with pytest.raises(ConfigError, match="--threshold: none of these measures asks for masks"):
        truth_of(
            str(tmp_path / "model"),
            measures=("causality",),
            detector="owlv2",
            out=tmp_path / "other",
            **arguments,
        )
    with pytest.raises(PromptError, match="'clock', which the shapes detector does not know"):
        truth_of(str(tmp_path / "model"), out=tmp_path / "other", **arguments)
    assert not (tmp_path / "other").exists()


def test_prompts_that_ask_for_no_object_are_refused_in_one_line(
    tmp_path: Path, detectors: dict[str, str], monkeypatch: Any, capsys: Any
) -> None:
    nothing = {"tag": "single_object", "include": [], "exclude": [{"class": "cat", "count": 1}]}
    path = written(tmp_path, [Prompt("a photo without a cat", spec=nothing)])
    out = tmp_path / "out"
    words = f"truth {tmp_path}/model --like {path} --detector {detectors['owlv2']} --out {out}"
    monkeypatch.setattr("sys.argv", ["t2i-credit", *words.split()])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and "asks for no object" in message and message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("detector", "threshold", "told"),
    [
        ("mask2farmer", None, "mask2former"),
        ("owlv2@/nowhere", None, "/nowhere: no such folder"),
        ("owlv2", 1.5, "--threshold: 1.5; 0 to 1"),
        ("shapes", 0.5, "--threshold: the shapes detector has none"),
    ],
)
def test_a_detector_that_cannot_be_is_one_line(
    detector: str, threshold: float | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told) as error:
        find_finder(parse_config(recipe(tmp_path)), detector, threshold)
    assert "\n" not in str(error.value)


def test_a_class_that_a_detector_does_not_know_is_one_line(
    detectors: dict[str, str], tmp_path: Path
) -> None:
    finder = find_finder(parse_config(recipe(tmp_path)), detectors["mask2former"])
    with pytest.raises(PromptError, match="unknown class 'ring'"):
        finder.check([asking("ring")])
