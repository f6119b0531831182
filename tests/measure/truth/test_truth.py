"""The four truth measures: on toys whose answer is known, and the whole command on the shipped generator."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import WideConfig, tiny_model, wide_rollout
from typer.testing import CliRunner

from t2i_credit.cli.commands import app, main
from t2i_credit.credit.gcpo import ContrastKind
from t2i_credit.errors import ConfigError, PromptError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.truth.assigners import (
    Assigner,
    centre_closeness,
    default_assigners,
    parse_assigner,
    scores_of,
)
from t2i_credit.measure.truth.command import truth_of
from t2i_credit.measure.truth.localisation import localisation, one_object_texts, specificity
from t2i_credit.measure.truth.measures import TruthSettings, truth_prompts
from t2i_credit.prompts.files import save_prompts
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.training.metrics import live_localisation, object_tokens
from t2i_credit.training.policy import Policy


def thing(
    name: str, mask: Any = None, box: Any = (0, 0, 0, 0), prompted: bool = True
) -> dict[str, Any]:
    return {"name": name, "mask": mask, "box": box, "prompted": prompted}


# Localisation -----------------------------------------------------------------------------------------------------


def test_a_token_lies_on_an_object_that_covers_enough_of_its_cell() -> None:
    mask = np.zeros((4, 6), dtype=bool)  # 2 x 3 cells of 2 x 2 pixels
    mask[0, 5] = True  # a quarter of cell (0, 2)
    mask[2:4, 0] = True  # half of cell (1, 0)
    found = [[thing("circle", mask), thing("ring", np.ones((4, 6)), prompted=False)]]
    quarter = object_tokens(found, (2, 3), (4, 6), coverage=0.25)
    assert quarter.tolist() == [[False, False, True, True, False, False]]
    half = object_tokens(found, (2, 3), (4, 6), coverage=0.5)
    assert half.tolist() == [[False, False, False, True, False, False]]


def test_an_object_without_a_mask_counts_by_its_box() -> None:
    found = object_tokens([[thing("circle", box=(2.0, 0.0, 6.0, 2.0))]], (2, 3), (4, 6))
    assert found.tolist() == [[False, True, True, False, False, False]]


def test_the_centre_of_a_grid_that_is_not_square_is_its_middle() -> None:
    # one row of three: the outer centres lie a third of the width off, 0.4714 half diagonals
    assert centre_closeness((1, 3)).tolist() == pytest.approx([0.5286, 1.0, 0.5286], abs=1e-4)
    tall = centre_closeness((3, 2)).reshape(3, 2)
    assert tall[1].min() > tall[0].max() and tall[0].tolist() == pytest.approx(tall[2].tolist())


def test_localisation_compares_every_credit_with_the_baselines() -> None:
    on = torch.tensor([[True, False, False], [False, False, True], [True, True, True]])
    scores = {"uniform": torch.ones(3, 3), "right": on.float(), "wrong": (~on).float()}
    found = localisation(scores, on, 1, ["uniform"])
    assert found["samples"] == 2  # the third image is all object
    assert found["area"][0] == pytest.approx(1 / 3)
    right, wrong, uniform = (found["assigners"][name] for name in ("right", "wrong", "uniform"))
    estimates = right["auroc"], right["auroc_ahead"]["uniform"], wrong["mass"], uniform["pointing"]
    assert [row[0] for row in estimates] == pytest.approx([1.0, 0.5, 0.0, 1 / 3])
    assert all(low < estimate or low == 0 for estimate, low, _ in estimates)
    assert right["auroc"][2] == 1 and wrong["mass"][1] == 0


def test_a_training_step_tells_where_its_credit_lies_if_anything_was_found() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[0:2, 0:2] = True  # the first of 2 x 3 tokens
    credit = torch.tensor([[3.0, 1.0, 0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    found = live_localisation(credit, [[thing("ring", mask)], []], (2, 3), (4, 6))
    expected = {"truth/auroc": 1.0, "truth/mass": 0.5, "truth/area": 1 / 6, "truth/pointing": 1.0}
    assert found == pytest.approx(expected)
    assert live_localisation(credit, [[], []], (2, 3), (4, 6)) == {}


# Specificity ------------------------------------------------------------------------------------------------------


def record(*clauses: dict[str, Any], tag: str = "two_object") -> dict[str, Any]:
    return {"tag": tag, "include": [{"count": 1, **clause} for clause in clauses]}


def test_two_objects_become_two_prompts_of_one() -> None:
    clauses = ({"class": "circle", "color": "red"}, {"class": "ring", "color": "orange"})
    prompt = Prompt("a card with a red circle and an orange ring", spec=record(*clauses))
    assert one_object_texts(prompt) == ["a card with a red circle", "a card with an orange ring"]
    plain = Prompt("a ring and a cross", spec=record({"class": "ring"}, {"class": "cross"}))
    assert one_object_texts(plain) == ["a ring", "a cross"]


def test_prompts_without_two_objects_of_their_own_have_no_such_texts() -> None:
    one = Prompt("a photo of a ring", spec=record({"class": "ring"}))
    position = record({"class": "ring"}, {"class": "cross", "position": ["above", 0]})
    assert one_object_texts(one) is None
    assert one_object_texts(Prompt("a cross above a ring", spec=position)) is None
    assert one_object_texts(Prompt("a red circle and a ring")) is None


def test_credit_that_follows_the_negative_prompt_is_found_specific() -> None:
    model = tiny_model(WideConfig)
    clauses = ({"class": "circle", "color": "red"}, {"class": "square", "color": "blue"})
    prompt = Prompt("a photo of a red circle and a blue square", spec=record(*clauses))
    rollout = sample_rollout(model, [prompt], group_size=2, cfg_scale=2.0, seed=0)
    height, width = rollout.images.shape[-2:]
    left, right = np.zeros((2, height, width), dtype=bool)
    left[:, : width // 3], right[:, -(width // 3) :] = True, True
    objects = [[thing("circle", left), thing("square", right)]] * 2
    seen: list[torch.Tensor] = []

    def follows(fields: Any, mask: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """All credit on the left at the first call (the circle is removed), on the right at the second."""
        seen.append(fields["negative_logprobs"])
        credit = torch.zeros(mask.shape)
        credit[:, [0, 3] if len(seen) == 1 else [2, 5]] = 3.0
        return credit

    entry = parse_assigner("guidance_contrast").entry
    spy = Assigner("spy", type(entry)(assign=follows, description="", paper="", needs=entry.needs))
    found = specificity(
        Policy(model, None, "guided", 2.0, 1.0),
        rollout,
        torch.zeros(2),
        objects,
        [spy],
    )
    assert found is not None and found["samples"] == 4
    row = found["assigners"]["spy"]
    assert row["removed"][0] == 1.0 and row["apart"][0] == 1.0
    assert row["named"][0] == pytest.approx(0.25)  # 2 on the other object against 2 credited, 2 not
    assert not torch.equal(seen[0], seen[1])  # each turn has its own negative prompt
    assert not torch.equal(seen[0], rollout.negative_logprobs)


# Names ------------------------------------------------------------------------------------------------------------


def test_every_kind_of_contrast_is_compared_and_what_is_uniform_before_training_is_left_out() -> (
    None
):
    found, left_out = default_assigners()
    names = [assigner.name for assigner in found]
    for kind in ContrastKind.__args__:  # type: ignore[attr-defined]
        assert ("guidance_contrast" if kind == "k3" else f"guidance_contrast,kind={kind}") in names
    assert "uniform" not in names and {"top_entropy", "critical_tokens"} < set(names)
    mapped = {"reward_map", "reward_map,kind=signed"}
    assert set(left_out) == {"distribution_guided", "value", *mapped}
    assert "equals its reference" in left_out["distribution_guided"]
    of_run, nothing = default_assigners(has_left=True, has_critic=True, has_map=True)
    assert {one.name for one in of_run} == {*names, *left_out} and nothing == {}


def test_scores_are_the_baselines_and_the_credits_of_a_rollout() -> None:
    model, rollout = wide_rollout()
    contrast = parse_assigner("guidance_contrast,kind=abs,shape=proportional")
    policy = Policy(model, None, "guided", 2.0, 1.0)
    found = scores_of([contrast], rollout, torch.zeros(len(rollout)), policy, seed=0)
    assert list(found) == ["uniform", "random", "entropy", "centre", contrast.name]
    difference = (rollout.logprobs - rollout.negative_logprobs).abs()
    expected = difference * 6 / difference.sum(1, keepdim=True)
    assert torch.allclose(found[contrast.name], expected, rtol=1e-4)
    assert all(score.shape == rollout.tokens.shape for score in found.values())


def test_credit_of_a_whole_group_is_made_of_the_models_codes() -> None:
    model, rollout = wide_rollout()
    advantages = torch.linspace(-1, 1, rollout.group_size).repeat(
        len(rollout) // rollout.group_size
    )
    draw = torch.Generator().manual_seed(0)
    codes = SimpleNamespace(
        codebook=torch.randn(model.codebook_size, 3, generator=draw), grid=model.grid
    )
    vectors = torch.nn.functional.normalize(codes.codebook[rollout.tokens], dim=-1)
    policy = Policy(codes, None, "guided", 2.0, 1.0)
    found = parse_assigner("similarity")(rollout, advantages, policy)
    for b in range(rollout.group_size):  # the first group
        opposed = [
            j for j in range(rollout.group_size) if j != b and advantages[b] * advantages[j] <= 0
        ]
        alike = torch.stack([(vectors[b] * vectors[j]).sum(-1) for j in opposed]).mean(0)
        assert torch.allclose(found[b], (1 - alike) / (1 - alike).mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("guidance_kontrast", "guidance_kontrast"),
        ("guidance_contrast,kind=k4", "k4"),
        ("guidance_contrast,kind", "write key=value"),
        ("distribution_guided", "equals its reference, so this credit is uniform; measure a run"),
    ],
)
def test_a_credit_that_cannot_be_measured_is_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_assigner(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"share": 1.0}, "--share: 1.0; above 0, below 1"),
        ({"images": 1}, "--images: 1; at least 2"),
        ({"batches": 2}, "--batches: 2; at least 3"),
        ({"measures": ("causality", "beauty")}, "--measure: 'beauty' is not allowed"),
    ],
)
def test_a_setting_out_of_range_is_one_line(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        TruthSettings(**setting)


def test_a_measure_that_is_asked_for_twice_is_taken_once() -> None:
    twice = TruthSettings(measures=("specificity", "specificity"))
    assert twice.measures == ("specificity",)


def test_rewards_that_training_normalizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.geneval\.normalize: 'running' is refused"):
        truth_of("shapes", overrides=["reward.geneval.normalize=running"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_gradient_is_that_of_the_weights_which_training_would_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def measurement(config: Any, policy: Policy, **rest: Any) -> dict[str, Any]:
        seen.extend(name for name, p in policy.model.named_parameters() if p.requires_grad)
        raise ConfigError("seen enough")

    monkeypatch.setattr("t2i_credit.measure.truth.command.Measurement", measurement)
    with pytest.raises(ConfigError, match="seen enough"):
        truth_of("shapes", overrides=["tune.lora_rank=2"], out=tmp_path / "out")
    assert seen and all("lora" in name for name in seen)


def test_prompts_are_drawn_task_by_task_and_need_records() -> None:
    specs = [record({"class": "ring"}, tag=tag) for tag in ("colors", "counting") for _ in range(5)]
    prompts = [Prompt(f"prompt {i}", spec=spec) for i, spec in enumerate(specs)]
    chosen = truth_prompts(prompts, 2, seed=0)
    assert [p.spec["tag"] for p in chosen] == ["colors"] * 2 + ["counting"] * 2  # type: ignore[index]
    assert chosen == truth_prompts(prompts, 2, seed=0) != truth_prompts(prompts, 2, seed=1)
    assert chosen == truth_prompts(
        [*prompts, *prompts], 2, seed=0
    )  # a prompt stands once, not twice
    with pytest.raises(
        PromptError, match="'a ring': no spec, so its task and the masks of its objects are unknown"
    ):
        truth_prompts([*prompts, Prompt("a ring")], 2, seed=0)


# The command ------------------------------------------------------------------------------------------------------

SMALL = ["--prompts", "1", "--images", "2", "--batches", "3"]
SMALL_STEP = ["prompts.per_step=2", "rollout.group_size=2"]


def test_the_command_measures_the_shipped_generator(tmp_path: Path) -> None:
    credits = ["--credit", "guidance_contrast", "--credit", "top_entropy,rho=0.5"]
    arguments = ["truth", "shapes", *SMALL_STEP, *SMALL, *credits, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "truth.json").read_text())
    assert found["images"] == 6 * 2 and found["policy"] == "guided"
    names = {"guidance_contrast", "top_entropy,rho=0.5"}
    assert names < set(found["localisation"]["assigners"])
    kept = found["causality"]["positive"]["kept"]
    assert set(kept["assigners"]) == {"random", "entropy", *names}
    assert kept["changed"] <= round(0.2 * 36)
    assert set(found["specificity"]["assigners"]) == names
    assert found["gradients"]["batches"] == 3 and found["gradients"]["samples"] == 4
    assert found["gradients"]["assigners"]["uniform"]["large"] is None  # too few batches
    table = (tmp_path / "out" / "truth.md").read_text()
    assert "## localisation" in table and "top_entropy,rho=0.5" in table
    assert (tmp_path / "out" / "truth.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (Prompt("a red circle"), "no spec"),
        (
            Prompt("a photo of a clock", spec=record({"class": "clock"}, tag="single_object")),
            "'clock'",
        ),
    ],
)
def test_prompts_without_masks_are_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, prompt: Prompt, told: str
) -> None:
    save_prompts([prompt], tmp_path / "prompts.jsonl")
    out = tmp_path / "out"
    monkeypatch.setattr(
        "sys.argv",
        [
            "t2i-credit",
            "truth",
            "shapes",
            f"prompts.source={tmp_path}/prompts.jsonl",
            "--out",
            str(out),
        ],
    )
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and told in message and message.count("\n") == 1
    assert not out.exists()
