"""Evaluation: hand-derived scores and intervals, the official line format, files. Needs no weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painter import PROMPTS, PROTOCOL, Painter, WideConfig, build

from t2i_credit.errors import PromptError, RunError, UserError
from t2i_credit.geneval import judge
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.cards.generator import best_cell, grid_table
from t2i_credit.measure.evaluation import evaluate as evaluate_module
from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.scores import Evaluation, by_task, load_evaluation, paired
from t2i_credit.measure.intervals import task_intervals, task_means
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel
from t2i_credit.prompts.records import TASKS
from t2i_credit.rollout.sampling import EVALUATION_DOMAIN, derive_seed, sample_rollout
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter
from t2i_credit.training.metrics import token_disagreement
from t2i_credit.worlds.shapes.detector import detect


def summarize(results: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """The official summary: the fraction of correct images of each task, and their mean."""
    verdicts: dict[str, list[bool]] = {}
    for task, correct in results:
        verdicts.setdefault(task, []).append(bool(correct))
    order = dict.fromkeys([task for task in TASKS if task in verdicts] + list(verdicts))
    scores = {task: sum(verdicts[task]) / len(verdicts[task]) for task in order}
    return {**scores, "overall": sum(scores.values()) / len(scores)}


@pytest.fixture(scope="module")
def painter() -> Painter:
    return build(Painter, WideConfig)


@pytest.fixture(scope="module")
def evaluation(painter: Painter) -> Evaluation:
    return evaluate(painter, PROMPTS, detect, PROTOCOL)


def made_up(
    verdicts: dict[str, Sequence[Sequence[float]]],
    *,
    scores: Callable[[float], float] = float,
    disagreement: float | None = 0.5,
    **changed: Any,
) -> Evaluation:
    """An evaluation with the given verdicts, {task: one row of G per prompt}."""
    rows = [(task, row) for task, every in verdicts.items() for row in every]
    records = [
        {
            "tag": task,
            "prompt": f"{task} {p}",
            "correct": bool(value),
            "score": scores(value),
            "metadata": json.dumps({"tag": task, "prompt": f"{task} {p}"}),
        }
        for p, (task, row) in enumerate(rows)
        for value in row
    ]
    settings = {"images_per_prompt": len(rows[0][1]), "cfg_scale": 2.0, **changed}
    return Evaluation(Protocol(**settings), [None] * len(rows), [disagreement] * len(rows), records)


# Statistics -------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_constant_is_that_constant() -> None:
    found = task_intervals({"colors": np.full(7, 0.25), "counting": np.full(3, 0.75)})
    assert found == {
        "colors": (0.25, 0.25, 0.25),
        "counting": (0.75, 0.75, 0.75),
        "overall": (0.5, 0.5, 0.5),
    }


def test_the_means_of_tasks_are_the_official_summary_in_its_order() -> None:
    results = [("position", True), ("colors", True), ("colors", False), ("colors", False)]
    results += [("mine", False), ("single_object", True)]
    tags = [task for task, _ in results]
    scores = task_means(by_task(tags, np.array([correct for _, correct in results], dtype=float)))
    assert scores == pytest.approx(summarize(results))
    # (1 + 1/3 + 1 + 0) / 4, where the mean over the six images would be 1/2.
    assert scores == pytest.approx(
        {"single_object": 1.0, "colors": 1 / 3, "position": 1.0, "mine": 0.0, "overall": 7 / 12}
    )
    assert list(scores) == ["single_object", "colors", "position", "mine", "overall"]


def test_an_interval_is_two_standard_errors_wide_on_either_side() -> None:
    # 50 zeros and 50 ones: the standard error of the mean is sqrt(0.25 / 100) = 0.05, 95% = 1.96 of them = 0.098.
    # Of two such tasks the mean has 0.05 / sqrt(2), hence 0.0693. The ends come from 2000 draws in steps of 0.01.
    half = np.repeat([0.0, 1.0], 50)
    found = task_intervals({"colors": half, "counting": half})
    assert found["colors"] == pytest.approx((0.5, 0.402, 0.598), abs=0.012)
    assert found["overall"] == pytest.approx((0.5, 0.4307, 0.5693), abs=0.008)


def test_the_two_tasks_of_an_overall_interval_are_drawn_independently() -> None:
    # drawn alike, two tasks of equal values would give overall the width of one task
    half = np.repeat([0.0, 1.0], 50)
    found = task_intervals({"colors": half, "counting": half})
    width = {task: high - low for task, (_, low, high) in found.items()}
    assert width["overall"] < 0.8 * width["colors"]


def test_the_interval_of_a_task_does_not_depend_on_the_other_tasks() -> None:
    numbers = np.random.default_rng(0).random(9)
    alone = task_intervals({"colors": numbers})
    among = task_intervals({"counting": numbers[:4], "colors": numbers})
    assert among["colors"] == alone["colors"] == task_intervals({"colors": numbers})["overall"]
    assert task_intervals({"colors": numbers}, seed=1)["colors"] != alone["colors"]


def test_values_are_split_by_task_in_the_official_order() -> None:
    tags = ["mine", "position", "single_object", "mine"]
    found = by_task(tags, np.arange(4.0))
    assert list(found) == ["single_object", "position", "mine"]
    assert {task: v.tolist() for task, v in found.items()} == {
        "single_object": [2.0],
        "position": [1.0],
        "mine": [0.0, 3.0],
    }


def test_disagreement_is_the_share_of_positions_at_which_two_samples_differ() -> None:
    # first prompt: 00 01 11 differ in 1, 2 and 1 of 2 positions: (1/2 + 1 + 1/2) / 3 = 2/3; second prompt: all alike
    tokens = np.array([[[0, 0], [0, 1], [1, 1]], [[5, 6], [5, 6], [5, 6]]])
    assert token_disagreement(tokens) == pytest.approx([2 / 3, 0.0])
    assert token_disagreement(tokens[:, :1]) == [None, None]


# Scores -----------------------------------------------------------------------------------------------------------


def test_overall_is_the_mean_over_tasks_and_not_over_images() -> None:
    # 1 of 1 and 0 of 3 prompts: (1 + 0) / 2, although a quarter of the images is correct
    found = made_up({"colors": [[1, 1]], "position": [[0, 0]] * 3}).summary()
    assert found["overall"]["correct"] == 0.5
    assert found["overall"]["pass_at_k"] == 0.5
    assert (found["overall"]["prompts"], found["overall"]["images"]) == (4, 8)
    assert (found["position"]["prompts"], found["position"]["images"]) == (3, 6)


def test_a_summary_counts_images_checks_and_prompts() -> None:
    # 4 of 8 images; a failed image passes a fifth of its checks: (4 + 4 * 0.2) / 8; 3 of 4 prompts have a correct one
    rows = [[1, 1], [1, 0], [0, 1], [0, 0]]
    found = made_up({"colors": rows}, scores=lambda v: 1.0 if v else 0.2).summary()["colors"]
    assert found["correct"] == 0.5
    assert found["partial"] == pytest.approx(0.6)
    assert found["pass_at_k"] == 0.75
    assert found["disagreement"] == 0.5


def test_prompts_are_resampled_and_not_images() -> None:
    # 4 images that always agree say no more than one: 1.96 sqrt(0.25 / 100) = 0.098, not half of it
    rows = [[p % 2] * 4 for p in range(100)]
    found = made_up({"colors": rows}).summary()["colors"]
    assert found["high"] - found["low"] == pytest.approx(0.196, abs=0.025)


def test_the_scores_are_those_of_geneval(evaluation: Evaluation) -> None:
    official = summarize([(r["tag"], r["correct"]) for r in evaluation.records])
    found = {task: scores["correct"] for task, scores in evaluation.summary().items()}
    assert found == pytest.approx(official)
    assert list(found) == [*TASKS, "overall"]


# Pairs ------------------------------------------------------------------------------------------------------------


def test_a_pair_gives_the_change_of_every_task_and_of_their_mean() -> None:
    # colors 1/4 -> 3/4, position 1/2 -> 1/2: changes 1/2 and 0, mean 1/4
    before = made_up({"colors": [[0, 0], [0, 1]], "position": [[1, 0]]})
    after = made_up({"colors": [[1, 0], [1, 1]], "position": [[0, 1]]})
    found = paired(before, after)
    expected = {
        "colors": (0.25, 0.75, 0.5, 0.5, 0.5),
        "position": (0.5, 0.5, 0.0, 0.0, 0.0),
        "overall": (0.375, 0.625, 0.25, 0.25, 0.25),
    }
    names = ("before", "after", "change", "low", "high")
    assert {task: tuple(row[n] for n in names) for task, row in found.items()} == expected
    alone = before.summary()
    for task, row in found.items():
        assert (row["before_low"], row["before_high"]) == (alone[task]["low"], alone[task]["high"])
    assert found["colors"]["before_low"] < 0.25 < found["colors"]["before_high"]


def test_pairing_removes_the_variance_between_prompts() -> None:
    # every prompt gains exactly half: the change is certain, although either score alone is not
    rows = [[1, 0] if p % 2 else [0, 0] for p in range(10)]
    better = [[1, 1] if p % 2 else [1, 0] for p in range(10)]
    before, after = made_up({"colors": rows}), made_up({"colors": better})
    change = paired(before, after)["overall"]
    assert (change["low"], change["change"], change["high"]) == (0.5, 0.5, 0.5)
    alone = before.summary()["overall"]
    assert alone["high"] - alone["low"] > 0.2


def test_the_interval_of_a_change_covers_prompts_that_lose_too() -> None:
    # 60 prompts gain 1, 40 lose 1: mean 0.2, sd sqrt(1 - 0.04) = 0.98, 1.96 * 0.098 = 0.192
    before = made_up({"colors": [[p >= 60] for p in range(100)]})
    after = made_up({"colors": [[p < 60] for p in range(100)]})
    found = paired(before, after)["colors"]
    assert found["change"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.008, 0.392), abs=0.03)
    back = paired(after, before)["colors"]
    assert (back["low"], back["high"]) == pytest.approx((-found["high"], -found["low"]))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is 0 before and 1 after"),
        ({"cfg_scale": 3.0}, "cfg_scale is 2.0 before and 3.0 after"),
        ({"temperature": 0.5}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.5}, "top_p"),
    ],
)
def test_evaluations_of_two_protocols_are_not_paired(changed: dict[str, Any], named: str) -> None:
    rows = {"colors": [[0, 1], [1, 1]]}
    with pytest.raises(UserError, match=named) as caught:
        paired(made_up(rows), made_up(rows, **changed))
    assert "\n" not in str(caught.value)


def test_evaluations_of_two_prompt_sets_are_not_paired() -> None:
    one = made_up({"colors": [[0, 1], [1, 1]]})
    with pytest.raises(UserError, match="images_per_prompt is 2 before and 1 after"):
        paired(one, made_up({"colors": [[0], [1]]}))
    with pytest.raises(UserError, match="2 prompts before and 1 after"):
        paired(one, made_up({"colors": [[0, 1]]}))
    with pytest.raises(UserError, match=r"prompt 1 \('colors 1' before, 'position 1' after\)"):
        paired(one, made_up({"colors": [[0, 1]], "position": [[1, 1]]}))
    with pytest.raises(UserError, match=r"prompt 1 .* negative"):
        paired(one, replace(one, negatives=[None, ""]))


def test_the_batch_size_does_not_keep_evaluations_from_being_paired() -> None:
    rows = {"colors": [[0, 1]]}
    found = paired(made_up(rows), made_up(rows, batch_size=3))
    assert found["overall"]["change"] == 0.0


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
        ([PROMPTS[0], Prompt("a red circle")], "prompt 'a red circle': no spec"),
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


# Files ------------------------------------------------------------------------------------------------------------


def test_json_and_back_is_the_same_evaluation(evaluation: Evaluation) -> None:
    value = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    records = json.loads(json.dumps(evaluation.records, allow_nan=False))
    back = Evaluation.from_json(value, records)
    assert back == evaluation
    assert back.summary() == evaluation.summary() == value["summary"]


def test_a_saved_evaluation_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    path = evaluation.save(tmp_path / "deep" / "er", "base.v1")
    assert path == tmp_path / "deep" / "er" / "base.v1.json"
    assert sorted(p.name for p in path.parent.iterdir()) == ["base.v1.json", "base.v1.jsonl"]
    assert load_evaluation(path) == evaluation
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == evaluation.records
    assert paired(load_evaluation(path), evaluation)["overall"]["change"] == 0.0


def test_an_evaluation_in_a_run_folder_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config={}, environment={}, total=1) as run:
        path = run.write_evaluation("base", evaluation.to_json(), evaluation.records)
    assert load_evaluation(path) == evaluation
    reader = RunReader(tmp_path / "run")
    assert reader.evaluation("base")["summary"] == evaluation.summary()
    assert reader.evaluation_images("base") == evaluation.records


def test_an_evaluation_of_single_images_has_no_disagreement(
    painter: Painter, tmp_path: Path
) -> None:
    found = evaluate(painter, PROMPTS[:2], detect, replace(PROTOCOL, images_per_prompt=1))
    scores = found.summary()["overall"]
    assert scores["disagreement"] is None
    assert scores["pass_at_k"] == scores["correct"]
    assert load_evaluation(found.save(tmp_path, "single")) == found


def test_texts_with_strange_line_ends_survive(painter: Painter, tmp_path: Path) -> None:
    prompt = replace(PROMPTS[0], text="a circle\u2028or\na ring, schön", negative="\u2029")
    found = evaluate(painter, [prompt], detect, PROTOCOL)
    assert load_evaluation(found.save(tmp_path, "strange")) == found


def test_saving_again_replaces_and_a_half_replaced_evaluation_is_refused(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    path = evaluation.save(tmp_path, "base")
    other = replace(evaluation, records=[{**r, "correct": True} for r in evaluation.records])
    assert load_evaluation(other.save(tmp_path, "base")) == other
    lines = "".join(json.dumps(record) + "\n" for record in evaluation.records)
    path.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(RunError, match="lines per image belong to another evaluation"):
        load_evaluation(path)


def test_an_evaluation_that_cannot_be_written_says_so_in_the_name_of_its_file(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: cannot be written"):
        evaluation.save(tmp_path / "file", "base")
    (tmp_path / "base.json").mkdir()
    with pytest.raises(RunError, match=r"base\.json: cannot be written"):
        evaluation.save(tmp_path, "base")
    assert not list(tmp_path.glob(".*"))  # nothing half written
    for name in ("", ".hidden", "a/b", ".."):
        with pytest.raises(RunError, match="evaluation name"):
            evaluation.save(tmp_path, name)


def damaged(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda p: p.unlink(), r"base\.json: no such file"),
        (lambda p: p.with_suffix(".jsonl").unlink(), r"base\.jsonl: no such file"),
        (lambda p: p.write_text("{"), r"base\.json: damaged, not JSON"),
        (lambda p: p.write_bytes(b"\xff"), r"base\.json: cannot be read: not a text"),
        (lambda p: p.write_text("[]"), r"base\.json: holds a list, not an object"),
        (lambda p: p.write_text("{}"), "'format' is missing"),
        (lambda p: damaged(p, format=2), "format 2; this version reads 1"),
        (lambda p: damaged(p, protocol={"cfg_scale": 0}), "cfg_scale: 0; allowed is"),
        (lambda p: damaged(p, protocol={"guidance": 1}), "guidance"),
        (lambda p: damaged(p, protocol=3), "not a readable evaluation"),
        (lambda p: damaged(p, prompts=[]), "36 images, its prompts"),
        (lambda p: damaged(p, prompts=[1]), "not a readable evaluation"),
        (
            lambda p: p.with_suffix(".jsonl").write_text('{"tag": 1}\n{"ta'),
            r"base\.jsonl, line 2: damaged",
        ),
        (lambda p: p.with_suffix(".jsonl").write_text(""), "belong to another evaluation"),
    ],
)
def test_a_damaged_evaluation_is_refused_in_one_line(
    evaluation: Evaluation, tmp_path: Path, damage: Callable[[Path], Any], named: str
) -> None:
    path = evaluation.save(tmp_path, "base")
    damage(path)
    with pytest.raises(RunError, match=named) as caught:
        load_evaluation(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_only_the_json_file_names_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"base\.jsonl: not an evaluation; its file ends in \.json"):
        load_evaluation(tmp_path / "base.jsonl")
