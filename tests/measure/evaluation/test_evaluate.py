"""Sampling and judging: what an evaluation draws, keeps and refuses, and the table of settings. Needs no weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from painter import PROMPTS, PROTOCOL, Painter, build

from t2i_credit.errors import PromptError, UserError
from t2i_credit.geneval import judge
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.cards.generator import best_cell, grid_table
from t2i_credit.measure.evaluation import evaluate as evaluate_module
from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.scores import Evaluation, paired
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel
from t2i_credit.rollout.sampling import EVALUATION_DOMAIN, derive_seed, sample_rollout
from t2i_credit.worlds.shapes.detector import detect

# Sampling and judging ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_changes_nothing(
    painter: Painter, evaluation: Evaluation, batch_size: int
) -> None:
    # 12 prompts x 3 images; 7 of the fixture is two groups and a rest
    protocol = replace(PROTOCOL, batch_size=batch_size)
    found = evaluate(painter, PROMPTS, detect, protocol)
    assert found.records == evaluation.records
    assert found.disagreement == evaluation.disagreement


def test_images_are_those_of_one_rollout_under_the_evaluation_seed(
    painter: Painter, evaluation: Evaluation
) -> None:
    seed = derive_seed(EVALUATION_DOMAIN, 4)
    rollout = sample_rollout(painter, PROMPTS, group_size=3, cfg_scale=2.0, seed=seed)
    pixels = (rollout.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    kept = evaluate(painter, PROMPTS, detect, PROTOCOL, keep_images=True)
    assert kept.images is not None and kept.images.dtype == np.uint8
    assert kept.images.shape == (36, 48, 48, 3)
    assert np.array_equal(kept.images, pixels)
    assert evaluation.images is None
    # and their diversity is that of their tokens, counted pair by pair
    for p, found in enumerate(evaluation.disagreement):
        a, b, c = rollout.tokens[3 * p : 3 * p + 3]
        pairs = [(x != y).double().mean().item() for x, y in ((a, b), (a, c), (b, c))]
        assert found == pytest.approx(sum(pairs) / 3)
    assert any(0 < found < 1 for found in evaluation.disagreement if found is not None)


def test_every_sampling_setting_reaches_the_sampler(
    painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def spy(model: Any, prompts: Any, **settings: Any) -> Any:
        seen.append(settings)
        return sample_rollout(model, prompts, **settings)

    monkeypatch.setattr(evaluate_module, "sample_rollout", spy)
    settings = {"cfg_scale": 3.0, "temperature": 0.8, "top_k": 9, "top_p": 0.9, "batch_size": 4}
    evaluate(painter, PROMPTS[:3], detect, Protocol(**settings, images_per_prompt=2, seed=6))
    assert [call["first_sample"] for call in seen] == [0, 4]
    for call in seen:
        assert {key: call[key] for key in settings} == settings
        assert call["group_size"] == 2


def test_no_seed_of_an_evaluation_is_one_of_training() -> None:
    # training derives its seeds under small numbers of purpose
    evaluations = {derive_seed(EVALUATION_DOMAIN, seed) for seed in range(100)}
    keys = [(purpose, seed, step) for purpose in range(8) for seed in range(8) for step in range(8)]
    training = {derive_seed(*key) for key in keys} | {derive_seed(*key[:2]) for key in keys}
    assert len(evaluations) == 100
    assert not evaluations & training


def test_a_verdict_is_that_of_the_detector_on_the_image(
    painter: Painter, evaluation: Evaluation
) -> None:
    kept = evaluate(painter, PROMPTS, detect, PROTOCOL, keep_images=True)
    assert kept.images is not None
    for i, (record, found) in enumerate(zip(kept.records, detect(kept.images), strict=True)):
        spec = PROMPTS[i // 3].spec
        assert spec is not None
        verdict = judge(found, spec)
        assert (record["correct"], record["score"]) == (verdict.correct, verdict.score)
        assert record["reason"] == verdict.reason
        # the painter's single object fulfils these two tasks exactly if the class, and the colour, is the asked one
        if record["tag"] in ("single_object", "colors"):
            (name,) = found
            asked = spec["include"][0]
            color = asked.get("color", found[name][0].color)
            assert record["correct"] == (name == asked["class"] and found[name][0].color == color)
    assert {record["correct"] for record in evaluation.records} == {True, False}


def test_a_record_has_the_official_keys_and_ours(evaluation: Evaluation) -> None:
    official = ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert all(
        list(record) == [*official, "colors", "score", "fault", "prompt_index", "sample_index"]
        for record in evaluation.records
    )
    record = evaluation.records[4]  # the second image of the second prompt
    assert record["filename"] == "00001/samples/0001.png"
    assert (record["prompt_index"], record["sample_index"]) == (1, 1)
    assert (record["tag"], record["prompt"]) == ("single_object", PROMPTS[1].text)
    assert type(record["correct"]) is bool
    # as GenEval has them: texts, which its summary groups by
    assert json.loads(record["metadata"]) == PROMPTS[1].spec
    ((boxes,),) = [list(json.loads(record["details"]).values())]
    assert len(boxes) == 1 and len(boxes[0]) == 5
    assert len({record["metadata"] for record in evaluation.records}) == len(PROMPTS)


def test_a_list_in_which_each_line_stands_three_times_is_three_images_of_each_prompt(
    painter: Painter, evaluation: Evaluation
) -> None:
    # image g of prompt p is sample 3 p + g either way, so the images are the same
    single = replace(PROTOCOL, images_per_prompt=1)
    lines = [prompt for prompt in PROMPTS for _ in range(3)]
    found = evaluate(painter, lines, detect, single, keep_images=True)
    assert [r["filename"] for r in found.records[:4]] == [
        f"{line:05d}/samples/0000.png" for line in range(4)
    ]
    theirs = {task: {**row, "disagreement": None} for task, row in evaluation.summary().items()}
    assert found.summary() == theirs
    assert paired(evaluation, found)["overall"]["change"] == 0.0
    # the lines in turn: the images are kept in the order of their records
    turns = evaluate(painter, PROMPTS * 3, detect, single, keep_images=True)
    assert found.images is not None and turns.images is not None
    assert turns.records[1]["filename"] == f"{len(PROMPTS):05d}/samples/0000.png"
    again = detect(turns.images[[1]])[0]
    boxes = {kind: [[*one.box, one.confidence] for one in every] for kind, every in again.items()}
    assert json.loads(turns.records[1]["details"]) == boxes


def test_a_rephrased_prompt_counts_as_one_of_its_own(painter: Painter) -> None:
    both = [PROMPTS[0], replace(PROMPTS[0], text=PROMPTS[0].text + " of a kind")]
    found = evaluate(painter, both, detect, replace(PROTOCOL, images_per_prompt=1))
    assert [json.loads(r["metadata"])["prompt"] for r in found.records] == [p.text for p in both]


def test_the_embedded_generator_is_evaluated_on_its_square_grid() -> None:
    model = build(EmbeddedModel, EmbeddedConfig)
    protocol = Protocol(images_per_prompt=2, cfg_scale=1.0)
    seen: list[tuple[int, ...]] = []

    def looking(images: Any, specs: Any) -> Any:
        seen.append((*images.shape, images.flags["C_CONTIGUOUS"]))
        return detect(images)

    found = evaluate(model, PROMPTS[::6], looking, protocol)
    assert seen == [(4, 48, 48, 3, True)]
    assert found.summary()["overall"]["images"] == 4


def test_without_guidance_the_negative_branch_does_not_run(
    painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    condition = painter.condition

    def spy(prompts: Any, negatives: Any) -> Any:
        given.append(negatives)
        return condition(prompts, negatives)

    monkeypatch.setattr(painter, "condition", spy)
    evaluate(painter, PROMPTS[:1], detect, replace(PROTOCOL, cfg_scale=1.0))
    evaluate(painter, PROMPTS[:1], detect, PROTOCOL)
    assert given == [None, [None]]


def test_an_evaluation_leaves_the_model_and_the_random_state_as_they_were(painter: Painter) -> None:
    painter.train()
    painter.vq.eval()
    state = torch.get_rng_state()
    inside: list[bool] = []

    def looking(images: Any, specs: Any) -> Any:
        inside.append(painter.training or painter.language_model.training)
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate(painter, PROMPTS[:1], looking, PROTOCOL)
        assert inside == [False]
        assert painter.training and painter.language_model.training and not painter.vq.training
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        painter.eval()


def test_progress_counts_images(painter: Painter) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(painter, PROMPTS[:5], detect, PROTOCOL, progress=lambda *call: calls.append(call))
    assert calls == [(6, 15), (12, 15), (15, 15)]  # two groups of 3 go into a batch of 7


def test_prompts_that_cannot_be_judged_are_refused_before_anything_is_sampled() -> None:
    nothing: Any = None  # a model that would fail at the first touch
    cases: list[tuple[list[Prompt], str]] = [
        ([], "the set is empty"),
        ([PROMPTS[0], Prompt("a red circle")], "prompt 'a red circle': has no GenEval record"),
        ([Prompt("a circle", spec={"tag": "colors"})], "prompt 'a circle': key 'include'"),
    ]
    for prompts, named in cases:
        with pytest.raises(PromptError, match=named):
            evaluate(nothing, prompts, detect, PROTOCOL)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images_per_prompt", 0),
        ("images_per_prompt", 1.5),
        ("images_per_prompt", True),
        ("cfg_scale", 0.9),
        ("cfg_scale", float("nan")),
        ("cfg_scale", "3"),
        ("temperature", 0),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("seed", -1),
        ("seed", 2**63),
        ("batch_size", 0),
        ("batch_size", None),
    ],
)
def test_a_protocol_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{key}: .*; allowed is ") as caught:
        Protocol(**{"cfg_scale": 2.0, key: value})
    assert "\n" not in str(caught.value)


# The table of guidance scales and temperatures --------------------------------------------------------------------


def test_every_cell_of_the_table_is_an_evaluation_of_its_own(painter: Painter) -> None:
    protocol = replace(PROTOCOL, images_per_prompt=2)
    calls: list[tuple[int, int]] = []
    table = grid_table(
        painter,
        PROMPTS[:4],
        detect,
        cfg_scales=[1.0, 3.0],
        temperatures=[0.5, 1.0],
        protocol=protocol,
        progress=lambda *call: calls.append(call),
    )
    places = [(cell["cfg_scale"], cell["temperature"]) for cell in table]
    assert places == [(1.0, 0.5), (1.0, 1.0), (3.0, 0.5), (3.0, 1.0)]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for cell in table:
        own = replace(protocol, cfg_scale=cell["cfg_scale"], temperature=cell["temperature"])
        overall = evaluate(painter, PROMPTS[:4], detect, own).summary()["overall"]
        found = (cell["overall"], cell["low"], cell["high"])
        assert found == (overall["correct"], overall["low"], overall["high"])
    with pytest.raises(UserError, match="cfg_scales"):
        grid_table(painter, PROMPTS, detect, cfg_scales=[], temperatures=[1.0], protocol=protocol)


def test_the_best_cell_has_the_highest_score_and_of_equals_is_the_first() -> None:
    cells = [{"cfg_scale": float(c), "overall": o} for c, o in enumerate([0.2, 0.7, 0.7, 0.1])]
    assert best_cell(cells)["cfg_scale"] == 1.0
