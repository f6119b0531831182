"""What a step keeps: samples, probes, objects, metrics, and rewards that are held out or normalised."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import ROOT
from toys import PROMPTS, recipe
from training_runs import EVERY_REWARD, EVERYTHING, timeless, trained

from t2i_credit import api
from t2i_credit.run_folder.layout import decode_mask
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.metrics import METRICS

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
    critic = {"credit": {"name": "value"}}
    mapped = {"reward": {"toys:bright": {"map": "occlusion", "map_block": 1}}}
    for i, sections in enumerate((EVERY_REWARD | refresh, gold, critic, mapped)):
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
