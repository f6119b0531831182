"""Images on disk: official folders and results, goings-on after a kill, anybody's images, thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from painter import PROMPTS, PROTOCOL, Painter
from PIL import Image

from t2i_credit.geneval import Detection
from t2i_credit.measure.evaluation.evaluate import evaluate, evaluate_images
from t2i_credit.measure.evaluation.find_images import read_folder
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.scores import Evaluation, paired
from t2i_credit.run_folder.journal import Journal
from t2i_credit.worlds.shapes.detector import detect

FEW = PROMPTS[::2]  # one of each task
SETTINGS = replace(PROTOCOL, images_per_prompt=2, batch_size=4)


@pytest.fixture(scope="module")
def drawn(painter: Painter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """An evaluation and the folder with its images."""
    folder = tmp_path_factory.mktemp("drawn") / "images"
    return evaluate(painter, FEW, detect, SETTINGS, folder=folder), folder


@pytest.fixture
def images(drawn: tuple[Evaluation, Path], tmp_path: Path) -> Path:
    """A copy of the images, to damage."""
    import shutil

    shutil.copytree(drawn[1], tmp_path / "images")
    return tmp_path / "images"


def judged(folder: Path, **settings: Any) -> Evaluation:
    found = read_folder(folder, prompts=FEW)
    protocol = Protocol.of_images(**settings)
    return evaluate_images(found, detect, protocol)


def test_the_verdicts_on_written_images_are_those_on_the_images_in_memory(
    drawn: tuple[Evaluation, Path],
) -> None:
    evaluation, folder = drawn
    found = judged(folder)
    assert found.records == evaluation.records
    assert {record["correct"] for record in found.records} == {True, False}
    assert found.summary()["overall"]["disagreement"] is None
    change = paired(found, evaluation)["overall"]
    assert (change["change"], change["low"], change["high"]) == (
        0.0,
        None,
        None,
    )  # one prompt a task


def test_the_official_summary_of_our_results_is_our_summary(
    drawn: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    evaluation, _ = drawn
    path = evaluation.save(tmp_path, "results").with_suffix(".jsonl")
    # what the official summary does with a results file, in its own library
    frame = pd.read_json(path, orient="records", lines=True)
    tasks = {tag: rows["correct"].mean() for tag, rows in frame.groupby("tag", sort=False)}
    ours = evaluation.summary()
    assert tasks == {task: row["correct"] for task, row in ours.items() if task != "overall"}
    assert np.mean(list(tasks.values())) == pytest.approx(ours["overall"]["correct"])
    assert len(frame.groupby("metadata")) == len(FEW)
    solved = frame.groupby("metadata")["correct"].any().mean()
    assert solved == pytest.approx((evaluation.means("correct") > 0).mean())


def test_missing_and_unreadable_images_are_wrong_and_counted(images: Path) -> None:
    whole = judged(images)
    right = next(r for r in whole.records if r["correct"])
    (images / right["filename"]).unlink()
    other = next(r for r in whole.records if r is not right)
    (images / other["filename"]).write_bytes(b"no image")
    found = judged(images)
    assert len(found.records) == len(whole.records)
    changed = {r["filename"]: r for r in found.records if r["fault"]}
    assert set(changed) == {right["filename"], other["filename"]}
    gone = changed[right["filename"]]
    assert (gone["correct"], gone["score"], gone["reason"]) == (False, 0.0, "missing")
    assert changed[other["filename"]]["reason"].startswith("unreadable (")
    assert len(found.faults()) == found.summary()["overall"]["missing"] == 2
    assert whole.summary()["overall"]["missing"] == 0
    before = sum(r["correct"] for r in whole.records) - other["correct"]
    assert sum(r["correct"] for r in found.records) == before - 1


def test_nothing_excluded_on_an_image_that_is_missing_does_not_make_it_right(
    tmp_path: Path,
) -> None:
    # "no circle" holds wherever nothing is seen
    spec = {"tag": "none", "include": [], "exclude": [{"class": "circle", "count": 1}]}
    (tmp_path / "00000" / "samples").mkdir(parents=True)
    record = {**spec, "prompt": "no circle"}
    (tmp_path / "00000" / "metadata.jsonl").write_text(json.dumps(record))
    Image.new("RGB", (48, 48), "white").save(tmp_path / "00000/samples/0001.png")
    found = read_folder(tmp_path, images_per_prompt=2)
    records = evaluate_images(found, detect, Protocol.of_images(images_per_prompt=2)).records
    assert [(r["filename"][-8:], r["correct"]) for r in records] == [
        ("0000.png", False),
        ("0001.png", True),
    ]


def test_images_of_several_sizes_are_judged_as_each_alone(images: Path) -> None:
    sizes: list[tuple[int, ...]] = []

    def looking(pixels: Any, specs: Any) -> Any:
        assert len(specs) == len(pixels)
        sizes.append(pixels.shape)
        return detect(pixels)

    path = images / "00000/samples/0001.png"
    with Image.open(path) as picture:
        wide = Image.new("RGB", (60, 48), picture.getpixel((0, 0)))
        wide.paste(picture)
    wide.save(path)
    found = read_folder(images)
    protocol = Protocol.of_images(images_per_prompt=2, batch_size=100)
    records = evaluate_images(found, looking, protocol).records
    assert sorted(sizes) == [(1, 48, 60, 3), (11, 48, 48, 3)]
    assert [r["correct"] for r in records] == [r["correct"] for r in judged(images).records]


def test_a_detector_is_given_the_record_of_each_image(images: Path) -> None:
    seen: list[str] = []

    def looking(pixels: Any, specs: Any) -> Any:
        seen.extend(spec["prompt"] for spec in specs)
        return detect(pixels)

    evaluate_images(read_folder(images), looking, Protocol.of_images(images_per_prompt=2))
    assert seen == [prompt.text for prompt in FEW for _ in range(2)]


def test_details_hold_what_the_verdict_looked_at_best_first_with_their_colours(
    images: Path,
) -> None:
    box = (1.0, 2.0, 3.0, 4.0)
    seen = {
        "circle": [Detection(box, c, color) for c, color in ((0.35, "red"), (0.95, "blue"))],
        "ring": [Detection(box, 0.2, "red")],
    }
    found = read_folder(images)
    two = {"images_per_prompt": 2}

    def look(**settings: Any) -> dict[str, tuple[Any, Any]]:
        protocol = Protocol.of_images(**two, **settings)
        records = evaluate_images(found, lambda pixels, specs: [seen] * len(pixels), protocol)
        return {r["tag"]: (json.loads(r["details"]), r["colors"]) for r in records.records}

    usual = look()
    assert usual["colors"] == (
        {"circle": [[*box, 0.95], [*box, 0.35]]},
        {"circle": ["blue", "red"]},
    )
    assert usual["counting"] == ({"circle": [[*box, 0.95]]}, {"circle": ["blue"]})
    assert set(look(threshold=0.1)["colors"][0]) == {"circle", "ring"}
    assert len(look(max_objects=1)["colors"][0]["circle"]) == 1
    assert len(look(nms_threshold=0.5)["colors"][0]["circle"]) == 1
    assert len(look(counting_threshold=0.3)["counting"][0]["circle"]) == 2


def test_a_killed_evaluation_goes_on_and_ends_as_if_it_had_not_been(
    painter: Painter, drawn: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    header = {"who": "painter"}
    calls: list[int] = []

    def dying(pixels: Any, specs: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(pixels)

    place = tmp_path / "unfinished.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            painter, FEW, dying, SETTINGS, folder=tmp_path / "i", journal=Journal(place, header)
        )
    assert calls == [4, 4, 4]  # two prompts of two images a batch; the third batch is lost
    told: list[tuple[int, int]] = []
    found = evaluate(
        painter,
        FEW,
        detect,
        SETTINGS,
        folder=tmp_path / "i",
        journal=Journal(place, header),
        progress=lambda *call: told.append(call),
    )
    assert told == [(8, 12), (12, 12)]
    assert found == drawn[0]
    for path in drawn[1].rglob("*.png"):
        assert (tmp_path / "i" / path.relative_to(drawn[1])).read_bytes() == path.read_bytes()


def test_judging_a_folder_goes_on_after_a_kill_too(images: Path, tmp_path: Path) -> None:
    found, place = read_folder(images, prompts=FEW), tmp_path / "unfinished.jsonl"
    protocol = Protocol.of_images(images_per_prompt=2, batch_size=4)

    def dying(pixels: Any, specs: Any) -> Any:
        if specs[0]["tag"] == "counting":  # in the second batch
            raise KeyboardInterrupt
        return detect(pixels)

    with pytest.raises(KeyboardInterrupt):
        evaluate_images(found, dying, protocol, journal=Journal(place, {}))
    journal = Journal(place, {})
    assert len(journal.found) == 2
    again = evaluate_images(found, detect, protocol, journal=journal)
    assert again == judged(images, batch_size=4)


def test_the_template_is_what_the_generator_reads_and_the_record_keeps_the_prompt(
    painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    condition = painter.condition

    def spy(prompts: Any, negatives: Any) -> Any:
        read.extend(prompts)
        return condition(prompts, negatives)

    monkeypatch.setattr(painter, "condition", spy)
    found = evaluate(painter, FEW[:1], detect, replace(SETTINGS, template="see: {prompt}!"))
    assert read == [f"see: {FEW[0].text}!"]
    assert found.records[0]["prompt"] == FEW[0].text


def test_a_generator_of_one_image_a_prompt_fills_the_official_folders(
    painter: Painter, tmp_path: Path
) -> None:
    single = replace(SETTINGS, images_per_prompt=1)
    evaluate(painter, FEW, detect, single, folder=tmp_path)
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert names == [f"{p:05d}/samples/0000.png" for p in range(6)]
    assert torch.is_grad_enabled()
