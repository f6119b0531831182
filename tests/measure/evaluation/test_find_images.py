"""Which images are of which prompt: by records, not by names and places. Scores are derived by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from t2i_credit.errors import UserError
from t2i_credit.geneval import Detection
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.evaluation.evaluate import evaluate_images
from t2i_credit.measure.evaluation.find_images import read_folder
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.scores import Evaluation
from t2i_credit.prompts.generate import single_object

CAT, DOG = single_object("cat"), single_object("dog")
PROMPTS = [Prompt(text=record["prompt"], spec=record) for record in (CAT, DOG)]


def draw(folder: Path, names: str, verdicts: Sequence[int]) -> None:
    """Images of the given names: a white one is right, a black one is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, right in zip(names.split(), verdicts, strict=True):
        Image.new("RGB", (4, 3), "white" if right else "black").save(folder / name)


def ask(folder: Path, record: dict[str, Any], **more: Any) -> Path:
    """A prompt's folder with its record; returns where its images lie."""
    (folder / "samples").mkdir(parents=True)
    (folder / "metadata.jsonl").write_text(json.dumps({**record, **more}))
    return folder / "samples"


def detect(pixels: Any, specs: Any) -> Any:
    """On a white image, what is asked for."""
    seen = [Detection((0, 0, 4, 3), 0.95)]
    return [
        {spec["include"][0]["class"]: seen if image.min() > 200 else []}
        for image, spec in zip(pixels, specs, strict=True)
    ]


def judged(folder: Path, **asked: Any) -> Evaluation:
    return evaluate_images(read_folder(folder, **asked), detect, Protocol.of_images())


def figures(found: Evaluation) -> dict[str, Any]:
    row = found.summary()["overall"]
    return {key: row[key] for key in ("correct", "pass_at_k", "prompts", "images", "missing")}


@pytest.fixture
def by_seed(tmp_path: Path) -> Path:
    """A folder for each image, named by running number, whose record also says the seed and the file: cat 1 of 2 right, dog 2
    of 2."""
    for n, (record, right) in enumerate([(CAT, 1), (DOG, 1), (CAT, 0), (DOG, 1)]):
        name = f"{n}.png"
        draw(ask(tmp_path / str(n), record, seed=n // 2, filename=name), name, [right])
    return tmp_path


def test_folders_of_one_record_are_one_prompt_whatever_their_images_are_called(
    by_seed: Path,
) -> None:
    # (1/2 + 2/2) / 2; four prompts, each with one of four images, would be 3/16
    expected = {"correct": 0.75, "pass_at_k": 1.0, "prompts": 2, "images": 4, "missing": 0}
    found = judged(by_seed)
    assert figures(found) == expected
    assert found.protocol.images_per_prompt == 2
    assert [r["filename"] for r in found.records if r["prompt_index"] == 0] == [
        "0/samples/0.png",
        "2/samples/2.png",
    ]
    assert figures(judged(by_seed, images_per_prompt=2)) == expected
    for prompts in (PROMPTS, PROMPTS[::-1], PROMPTS * 2):
        assert figures(judged(by_seed, prompts=prompts)) == expected
    assert figures(judged(by_seed, prompts=PROMPTS, images_per_prompt=2)) == expected
    with pytest.raises(UserError, match="2 images of one prompt, 1 were asked for; give --per-pr"):
        read_folder(by_seed, prompts=PROMPTS, images_per_prompt=1)
    draw(ask(by_seed / "4", CAT), "4.png", [1])
    with pytest.raises(
        UserError, match="3 images of one prompt, 2 were asked for; give --per-prompt 3"
    ):
        read_folder(by_seed, images_per_prompt=2)


def test_an_image_is_missing_against_what_was_asked_for_or_against_the_other_prompts(
    by_seed: Path,
) -> None:
    # with three asked for of each: (1/3 + 2/3) / 2
    found = judged(by_seed, images_per_prompt=3)
    assert figures(found) | {"correct": 0.5, "missing": 2, "images": 6} == figures(found)
    # of the set's dog one is gone now: (1/2 + 1/2) / 2 and, over the images that are there, (1/2 + 1) / 2
    (by_seed / "3/samples/3.png").unlink()
    found = judged(by_seed, prompts=PROMPTS)
    assert figures(found) | {"correct": 0.5, "missing": 1, "images": 4} == figures(found)
    there = found.there()
    assert there is not None
    assert figures(there) | {"correct": 0.75, "images": 3, "missing": 0} == figures(there)


def test_prompts_may_have_different_numbers_of_images(tmp_path: Path) -> None:
    draw(ask(tmp_path / "0", CAT), "0.png 1.png", [1, 0])
    draw(ask(tmp_path / "1", DOG, seed=1), "0.png 1.png", [1, 1])
    draw(ask(tmp_path / "2", DOG, seed=2), "0.png 1.png", [1, 0])
    # cat 1/2, dog 3/4, each of them one prompt: 5/8
    found = judged(tmp_path)
    assert figures(found) | {"correct": 0.625, "prompts": 2, "images": 6} == figures(found)
    assert found.images_each() == "2 to 4"
    # a folder with fewer than the others lacks some: dog 3/4 again, over those that are there 3/3
    (tmp_path / "2/samples/1.png").unlink()
    found = judged(tmp_path)
    assert found.faults() == ["2/samples/1.png: missing"]
    assert figures(found) | {"correct": 0.625, "missing": 1} == figures(found)
    assert figures(there := found.there() or found) | {"correct": 0.75} == figures(there)


def test_a_prompt_without_a_folder_takes_no_others_place(by_seed: Path) -> None:
    # folders 0, 1, 2, 3 are cats and dogs, so that of line 2 is none of them: (1/2 + 1 + 0) / 3
    bird = single_object("bird")
    prompts = [*PROMPTS, Prompt(text=bird["prompt"], spec=bird)]
    found = judged(by_seed, prompts=prompts)
    assert figures(found) | {"correct": 0.5, "prompts": 3, "missing": 2} == figures(found)
    assert found.faults()[0].startswith("missing-00002/samples/")


def test_a_record_over_several_lines_is_read(by_seed: Path) -> None:
    path = by_seed / "0/metadata.jsonl"
    path.write_text("\ufeff" + json.dumps(json.loads(path.read_text()), indent=2) + "\n\n", "utf-8")
    assert figures(judged(by_seed))["correct"] == 0.75
    path.write_text(json.dumps(CAT) + "\n" + json.dumps(DOG))
    with pytest.raises(UserError, match=r"0/metadata\.jsonl: is not JSON \(Extra data"):
        read_folder(by_seed)


@pytest.mark.parametrize(
    "names", ["0.jpg 1.jpg", "0.JPEG 1.png", "0000.PNG 0001.webp", "img_9.png img_10.png"]
)
def test_images_have_any_name_and_any_kind(names: str, tmp_path: Path) -> None:
    draw(ask(tmp_path / "00000", CAT), names, [1, 0])
    draw(ask(tmp_path / "00001", DOG), "a.png b.WebP" if "img" in names else names, [1, 1])
    found = judged(tmp_path)
    assert figures(found) | {"correct": 0.75, "images": 4, "missing": 0} == figures(found)
    assert [r["filename"] for r in found.records[:2]] == [
        f"00000/samples/{name}" for name in names.split()
    ]


def test_beside_numbered_images_others_are_none(tmp_path: Path) -> None:
    # the official script takes numbers.png alone: a grid of all, or a small copy, is no image of its own
    names = "0000.png 0000.jpg 0001.png grid.png ._0001.png"
    draw(ask(tmp_path / "00000", CAT), names, [1, 0, 0, 0, 0])
    images = read_folder(tmp_path)
    assert images.names == [["00000/samples/0000.png", "00000/samples/0001.png"]]
    assert [name.split("/")[-1] for name in images.ignored] == [
        "._0001.png",
        "0000.jpg",
        "grid.png",
    ]


def test_images_beside_each_other_belong_to_the_lines_in_natural_order(tmp_path: Path) -> None:
    names = "img_1.png img_2.png img_9.png img_10.png"
    draw(tmp_path, names, [1, 0, 1, 1])
    (tmp_path / "notes.txt").write_text("")
    # two of each line follow each other: cat 1/2, dog 2/2
    assert figures(judged(tmp_path, prompts=PROMPTS, images_per_prompt=2)) == {
        "correct": 0.75,
        "pass_at_k": 1.0,
        "prompts": 2,
        "images": 4,
        "missing": 0,
    }
    # four lines with one each, of which the same records are one prompt: cat 1, 1 of 2; dog 0, 1 of 2
    found = judged(tmp_path, prompts=PROMPTS * 2)
    assert figures(found) | {"correct": 0.75, "prompts": 2} == figures(found)
    assert [r["filename"] for r in found.records if r["prompt_index"] == 1] == [
        "img_2.png",
        "img_10.png",
    ]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"prompts": None}, "6 images, such as 0.png, and no folder 00000 .* give with --prompts"),
        (
            {"prompts": PROMPTS},
            "6 images, 0.png to 5.png, for 2 prompts x 1; give --per-prompt 3 if",
        ),
        ({"prompts": PROMPTS * 2}, "for 4 prompts x 1; allowed are 4, or G times as many with"),
        ({"prompts": PROMPTS, "images_per_prompt": 2}, "for 2 prompts x 2; give --per-prompt 3"),
        ({"prompts": PROMPTS * 4, "images_per_prompt": 1}, "for 8 prompts x 1; allowed are 8"),
    ],
)
def test_images_beside_each_other_that_do_not_go_round_are_refused(
    asked: dict[str, Any], named: str, tmp_path: Path
) -> None:
    draw(tmp_path, " ".join(f"{n}.png" for n in range(6)), [1] * 6)
    with pytest.raises(UserError, match=named) as caught:
        read_folder(tmp_path, **asked)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_record_belongs_to_the_line_of_its_number(by_seed: Path) -> None:
    (by_seed / "0/metadata.jsonl").unlink()
    assert figures(judged(by_seed, prompts=PROMPTS))["correct"] == 0.75
    (by_seed / "3/metadata.jsonl").unlink()
    with pytest.raises(UserError, match="3 lies beyond the 2 prompts of the set"):
        read_folder(by_seed, prompts=PROMPTS)
