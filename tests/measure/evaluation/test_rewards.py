"""Evaluation by rewards: figures by hand, missing images, pairs, going on after a kill, texts from tables, refusals."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painter import PROMPTS, Painter
from scipy import stats

from t2i_credit.errors import UserError
from t2i_credit.measure.evaluation import command as judging
from t2i_credit.measure.evaluation.command import evaluate_named
from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.rewards import parse_rewards, reward_changes
from t2i_credit.measure.evaluation.scores import load_evaluation, paired
from t2i_credit.rollout.images import from_uint8

TEXTS = ["a red circle", "a blue square", "a red square left of a blue circle", "blue circles"]


@pytest.fixture(autouse=True)
def folder(any_name_is_the_painter: None) -> None:
    """Any name is the painter; a table of texts lies in the working directory."""
    rows = [f'"{text}",{number}' for number, text in enumerate(TEXTS)]
    Path("list.csv").write_text("\n".join(["Prompts,Category", *rows]) + "\n", encoding="utf-8")


def by_rewards(model: str | None = "painter", images: Path | None = None, **more: Any) -> Any:
    given = {"against": None, "split": "train", "per_task": 1, "source": "list.csv"}
    given |= {"rewards": ["toys:bright", "toys:lit"], "images_per_prompt": 3, **more}
    return evaluate_named(model if images is None else None, images, **given)


def test_a_score_is_the_mean_over_prompts_of_the_means_over_their_images() -> None:
    report = by_rewards()
    found = report.evaluation
    values = np.array([[r["rewards"]["toys:bright"] for r in rows] for rows in found.rows()])
    assert values.shape == (4, 3)
    row = found.summary()["toys:bright"]
    means = values.mean(1)
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((means.mean(), low, high))
    assert row["best"] == pytest.approx(values.max(1).mean())
    assert (row["prompts"], row["images"], row["missing"]) == (4, 12, 0)
    assert load_evaluation(report.path) == found
    assert report.path.stem == "list-toys.bright+toys.lit-cfg2-t1-seed0"
    page = report.page.read_text(encoding="utf-8")
    for shown in (*TEXTS, "toys:bright", f"{row['mean']:.4f}", f"{low:.4f} to {high:.4f}"):
        assert shown in page, shown


def test_the_rewards_are_those_of_the_pixels_that_were_written() -> None:
    from toys import bright

    report = by_rewards()
    folder = report.path.with_suffix("")
    from t2i_credit.rollout.images import read_image

    for record in report.evaluation.records:
        pixels = from_uint8([read_image(folder / record["filename"])])
        assert record["rewards"]["toys:bright"] == pytest.approx(bright()(pixels, []).item())
        assert json.loads(record["metadata"]) == {"prompt": record["prompt"]}
    again = by_rewards(images=folder, source=None, images_per_prompt=3)
    assert again.evaluation.summary() == report.evaluation.summary()


def test_a_missing_image_is_left_out_and_told() -> None:
    folder = by_rewards().path.with_suffix("")
    (folder / "00001/samples/0001.png").unlink()
    told: list[str] = []
    report = by_rewards(images=folder, warn=told.append)
    assert told == [
        "missing or unreadable, left out: 1 of 12 images: 00001/samples/0001.png: missing"
    ]
    row = report.evaluation.summary()["toys:bright"]
    assert (row["prompts"], row["images"], row["missing"]) == (4, 11, 1)
    values = [[r["rewards"].get("toys:bright") for r in rows] for rows in report.evaluation.rows()]
    known = [[v for v in each if v is not None] for each in values]
    assert row["mean"] == pytest.approx(np.mean([np.mean(each) for each in known]))


def test_changes_are_paired_by_prompt_whatever_the_order_of_the_prompts() -> None:
    before = by_rewards(cfg_scale=1.0).path.with_suffix("")
    (before / "protocol.json").unlink()  # anybody's images now
    lines = Path("list.csv").read_text(encoding="utf-8").splitlines()
    Path("list.csv").write_text("\n".join([lines[0], *lines[:0:-1]]), encoding="utf-8")
    report = by_rewards(cfg_scale=5.0, against=str(before))
    first, second = (
        {
            rows[0]["prompt"]: np.mean([r["rewards"]["toys:bright"] for r in rows])
            for rows in one.rows()
        }
        for one in (report.against, report.evaluation)
    )
    changes = np.array([second[text] - first[text] for text in TEXTS])
    found = report.changes["toys:bright"]
    low, high = stats.t.interval(0.95, 3, changes.mean(), stats.sem(changes))
    expected = (changes.mean(), low, high)
    assert (found["change"], found["low"], found["high"]) == pytest.approx(expected)
    assert found["after"] - found["before"] == pytest.approx(found["change"])
    assert json.loads(report.path.read_text())["paired"]["toys:bright"] == found
    assert "from" in report.page.read_text(encoding="utf-8")


def test_the_same_model_changes_nothing_and_nothing_is_concluded() -> None:
    found = by_rewards(against="painter").changes["toys:bright"]
    assert found["change"] == 0.0 and found["low"] is found["high"] is None


def test_other_rewards_or_a_detector_cannot_be_paired(painter: Painter) -> None:
    one = by_rewards(rewards=["toys:bright"])
    for rewards in (["toys:lit"], ["toys:bright", "toys:bright.above=0.7"]):
        with pytest.raises(UserError, match="cannot be paired: judged by"):
            by_rewards(rewards=rewards, against=str(one.path))
    settings = {"cfg_scale": 2.0, "images_per_prompt": 3}
    objects = evaluate(
        painter, PROMPTS[:2], lambda pixels, specs: [{}] * len(pixels), Protocol(**settings)
    )
    with pytest.raises(UserError, match=r"judged by .* before and a detector after"):
        paired(one.evaluation, objects)


def test_a_killed_evaluation_goes_on_and_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = by_rewards(out=Path("whole"), batch_size=3)
    load, calls = judging.load_rewards, []

    def dying(rewards: Any) -> Any:
        score, check = load(rewards)

        def one(images: Any, prompts: Any) -> Any:
            calls.append(len(images))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return score(images, prompts)

        return one, check

    monkeypatch.setattr(judging, "load_rewards", dying)
    with pytest.raises(KeyboardInterrupt):
        by_rewards(out=Path("killed"), batch_size=3)
    assert not list(Path("killed").glob("*.json"))
    again = by_rewards(out=Path("killed"), batch_size=3)
    assert calls == [3] * 5  # four prompts, and the one that died
    assert again.evaluation.records == whole.evaluation.records


def test_what_a_reward_does_not_read_is_told_once_and_written() -> None:
    Path("long.txt").write_text("a red circle\na blue " + "square " * 40 + "\n", encoding="utf-8")
    told: list[str] = []
    report = by_rewards(source="long.txt", rewards=["clip"], images_per_prompt=1, warn=told.append)
    (line,) = [line for line in told if "reward clip" in line]
    assert "the end of 1 of 2" in line
    assert line in json.loads(report.path.read_text())["warnings"]


def test_rewards_are_named_with_their_parameters() -> None:
    assert parse_rewards(["clip", "pickscore"]) == {"clip": {}, "pickscore": {}}
    assert parse_rewards(["clip.scale=logit", "clip.batch_size=4", "a.b:c", "a.b:c.above=0.5"]) == {
        "clip": {"scale": "logit", "batch_size": 4},
        "a.b:c": {"above": 0.5},
    }


def test_all_prompts_may_have_one_negative_and_a_run_trained_under_one_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = by_rewards()
    told: list[str] = []
    report = by_rewards(negative="a blue ring", warn=told.append)
    assert told == [] and report.path != plain.path
    assert report.evaluation.negatives == ["a blue ring"] * 4
    assert "a blue ring" in report.page.read_text(encoding="utf-8")
    differs = [r["rewards"] for r in report.evaluation.records]
    assert differs != [r["rewards"] for r in plain.evaluation.records]
    monkeypatch.setattr(judging, "usual_negative", lambda name: "a blue ring")
    by_rewards(warn=told.append)
    (line,) = told
    assert "trained under the negative prompt 'a blue ring'" in line and "--negative" in line
    by_rewards(negative="a blue ring", warn=told.append)
    assert len(told) == 1


def test_a_before_that_the_run_did_not_begin_with_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for base, lines in (("shapes", 0), ("mine.yaml", 1)):
        monkeypatch.setattr(judging, "began_with", lambda name, base=base: base)
        by_rewards(against="shapes", warn=told.append)
        assert len([line for line in told if "painter began with mine.yaml" in line]) == lines


def test_a_stopped_evaluation_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = judging.load_rewards, []

    def stopping(rewards: Any) -> Any:
        score, check = load(rewards)

        def one(images: Any, prompts: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return score(images, prompts)

        return one, check

    monkeypatch.setattr(judging, "load_rewards", stopping)
    with pytest.raises(
        KeyboardInterrupt, match=r"keeps 6 judged images, and the same command goes"
    ):
        by_rewards(batch_size=3)
    done: list[tuple[int, int]] = []
    by_rewards(batch_size=3, progress=lambda *step: done.append(step))
    assert done[0] == (6, 12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rewards": ["nothere"]}, "nothere"),
        ({"rewards": ["clip.scael=logit"]}, "scael"),
        ({"rewards": ["clip.weight=2"]}, "weight is for training"),
        ({"rewards": ["=3"]}, "allowed are NAME and NAME.PARAMETER=VALUE"),
        ({"rewards": ["clip=3"]}, "allowed are NAME and NAME.PARAMETER=VALUE"),
        (
            {"detector": "shapes"},
            "detector: 'shapes' is a detector's, and --reward judges in its place",
        ),
        ({"rewards": []}, "has no GenEval record, which a detector needs"),
        ({"rewards": ["geneval"]}, "record"),
        ({"source": "absent.csv"}, "absent.csv"),
        ({"column": "absent"}, "absent"),
        ({"results": Path("list.csv"), "model": None}, "reward|prompts"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_writes_nothing(
    more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        by_rewards(**more)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in Path().iterdir()) == ["list.csv"]


def test_an_unknown_mean_is_none_and_not_nan() -> None:
    report = by_rewards(images_per_prompt=1)
    folder = report.path.with_suffix("")
    for path in sorted(folder.rglob("*.png"))[:3]:
        path.write_bytes(b"no picture")
    row = by_rewards(images=folder, images_per_prompt=1).evaluation.summary()["toys:bright"]
    assert row["prompts"] == 1 and row["low"] is row["high"] is None and math.isfinite(row["mean"])


def test_a_reward_that_works_in_place_changes_no_other() -> None:
    alone = by_rewards().evaluation.summary()["toys:bright"]
    beside = by_rewards(rewards=["user_functions:in_place", "toys:bright"], out=Path("beside"))
    assert beside.evaluation.summary()["toys:bright"] == alone


def test_an_unfinished_evaluation_does_not_go_on_with_another_code_of_a_reward(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = """
def build():
    def reward(images, prompts):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return images.mean((1, 2, 3))
    done = [] if FIRST else [1, 1, 1]
    return reward
FIRST = {first}
"""
    module = tmp_path / "changing.py"
    module.write_text(code.format(first=True))
    with pytest.raises(KeyboardInterrupt):
        by_rewards(rewards=["changing:build"], batch_size=3)
    module.write_text(code.format(first=False))
    sys.modules.pop("changing")
    told: list[str] = []
    report = by_rewards(rewards=["changing:build"], batch_size=3, warn=told.append)
    assert len(told) == 1 and "starts over, code has changed since" in told[0]
    assert report.evaluation.summary()["changing:build"]["images"] == 12


def test_an_evaluation_of_other_prompts_or_images_is_not_written_over() -> None:
    first = by_rewards()
    before = first.path.read_bytes()
    Path("other").mkdir()
    Path("other/list.csv").write_text("prompt\na blue circle\na red square\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"is the evaluation of other prompts: list.csv, and not"):
        by_rewards(source="other/list.csv")
    assert first.path.read_bytes() == before
    by_rewards(source=str(Path("list.csv").resolve()))  # the same file
    folder = first.path.with_suffix("")
    for name in ("a", "b"):
        shutil.copytree(folder, Path(name) / "images")
    by_rewards(images=Path("a/images"))
    with pytest.raises(UserError, match="is the evaluation of other images"):
        by_rewards(images=Path("b/images"))
    Path("file").write_text("x")
    with pytest.raises(UserError, match="is no folder to write in"):
        by_rewards(out=Path("file/x"))


def test_long_names_of_prompt_files_and_rewards_stay_apart() -> None:
    name = "p" * 230 + ".csv"
    Path(name).write_bytes(Path("list.csv").read_bytes())
    one = by_rewards(source=name)
    assert one.page.is_file() and len(one.path.name) < 200
    many = ["toys:bright", "toys:lit", "toys:constant", "user_functions:in_place"]
    paths = {by_rewards(rewards=many[:n], images_per_prompt=1).path for n in (3, 4)}
    assert len(paths) == 2


def test_a_picture_that_is_far_too_narrow_is_unreadable_and_named() -> None:
    from PIL import Image

    folder = by_rewards().path.with_suffix("")
    Image.new("RGB", (9000, 1)).save(folder / "00000/samples/0000.png")
    told: list[str] = []
    by_rewards(images=folder, rewards=["aesthetic"], warn=told.append)
    assert "00000/samples/0000.png: unreadable (9000 x 1 pixels are too narrow)" in told[0]


def test_where_no_image_can_be_judged_nothing_is_written() -> None:
    folder = by_rewards().path.with_suffix("")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"no image can be judged: 00000/samples/0000.png: unreadable"
    ):
        by_rewards(images=folder, out=Path("none"))
    assert not list(Path("none").glob("*.json*"))


def test_a_change_that_is_the_same_but_for_rounding_has_no_interval() -> None:
    row = {"rewards": {"a": 0.0}, "fault": ""}
    before = [[{**row, "rewards": {"a": value}}] for value in (0.1, 0.3, 0.7)]
    after = [[{**row, "rewards": {"a": value + 0.275}}] for value in (0.1, 0.3000001, 0.7)]
    found = reward_changes(before, after)["a"]
    assert found["change"] == pytest.approx(0.275) and found["low"] is found["high"] is None


def test_files_of_texts_may_hold_what_looks_like_a_record() -> None:
    lines = [
        {"prompt": "a red circle", "prompt_id": 3, "tags": ["x"], "caption_id": 1},
        {"prompt": "a blue square", "tag": "animals"},
    ]
    Path("mixed.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    report = by_rewards(source="mixed.jsonl")
    assert [rows[0]["prompt"] for rows in report.evaluation.rows()] == [
        "a red circle",
        "a blue square",
    ]
    folder = report.path.with_suffix("")
    record = {"prompt": "a red circle", "caption": "another text"}
    (folder / "00000/metadata.jsonl").write_text(json.dumps(record))
    again = by_rewards(images=folder, source=None)
    assert again.evaluation.rows()[0][0]["prompt"] == "a red circle"
    Path("negatives.csv").write_text("prompt,negative\na red circle,a blue ring\nblue circles,\n")
    found = by_rewards(source="negatives.csv").evaluation
    assert found.negatives == ["a blue ring", None]
