"""GenEval's folder layout: written and read, gaps and broken images named, foreign folders left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_credit.errors import RunError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.evaluation.find_images import read_folder
from t2i_credit.measure.evaluation.image_folder import (
    ImageFolder,
    clear_images,
    is_image_folder,
    read_protocol,
    write_images,
    write_protocol,
)
from t2i_credit.prompts.generate import colors, counting, single_object

RECORDS = [single_object("cat"), counting("bench", 2), colors("red", "bus")]
PROMPTS = [Prompt(text=record["prompt"], spec=record) for record in RECORDS]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three prompts with two images each, of 7 x 5 pixels."""
    write_images(tmp_path / "images", 0, PROMPTS[:1], PIXELS[:2])
    write_images(tmp_path / "images", 1, PROMPTS[1:], PIXELS[2:])
    return tmp_path / "images"


def faults(images: ImageFolder) -> dict[str, str]:
    """{name: why} of the images that cannot be had."""
    return {
        name: picture
        for p in range(len(images.prompts))
        for name, picture in zip(images.names[p], images.load(p), strict=True)
        if isinstance(picture, str)
    }


def test_the_layout_is_the_official_one(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    one = ["metadata.jsonl", "samples/0000.png", "samples/0001.png"]
    assert files == [f"{p:05d}/{name}" for p in range(3) for name in one]
    for p, record in enumerate(RECORDS):
        # the official script reads the whole file as one JSON value
        assert json.loads((folder / f"{p:05d}" / "metadata.jsonl").read_text()) == record


def test_a_folder_is_read_back_pixel_by_pixel(folder: Path) -> None:
    images = read_folder(folder)
    assert images.prompts == PROMPTS
    assert (images.numbers, images.ignored) == ([0, 1, 2], [])
    pixels = [picture for p in range(3) for picture in images.load(p)]
    assert np.array_equal(np.stack(pixels), PIXELS)
    assert images.names[2] == ["00002/samples/0000.png", "00002/samples/0001.png"]
    assert is_image_folder(folder) and not is_image_folder(folder / "00000")


def test_a_missing_and_an_unreadable_image_are_named(folder: Path) -> None:
    (folder / "00000/samples/0001.png").unlink()
    (folder / "00001/samples/0000.png").write_bytes(b"<html>not found</html>")
    whole = (folder / "00002/samples/0001.png").read_bytes()
    (folder / "00002/samples/0001.png").write_bytes(whole[: len(whole) // 2])
    found = faults(read_folder(folder))
    assert found.pop("00000/samples/0001.png") == "missing"
    assert sorted(found) == ["00001/samples/0000.png", "00002/samples/0001.png"]
    assert all(why.startswith("unreadable (") and "\n" not in why for why in found.values())


def test_a_missing_prompt_is_missing_where_the_set_is_known_and_refused_where_it_is_not(
    folder: Path,
) -> None:
    (folder / "00001").rename(folder / "away")
    with pytest.raises(UserError, match=r"1 of 3 prompts have no folder, such as 00001.*--prompts"):
        read_folder(folder)
    images = read_folder(folder, prompts=PROMPTS)
    assert images.prompts == PROMPTS
    assert faults(images) == {f"00001/samples/000{g}.png": "missing" for g in (0, 1)}
    later = [*PROMPTS, PROMPTS[0]]
    assert len(faults(read_folder(folder, prompts=later))) == 4


def test_more_images_may_be_asked_for_than_there_are_but_none_is_dropped(folder: Path) -> None:
    assert faults(read_folder(folder, images_per_prompt=3)) == {
        f"0000{p}/samples/0002.png": "missing" for p in range(3)
    }
    with pytest.raises(UserError, match=r"2 images of one prompt, 1 were asked for; give --per-"):
        read_folder(folder, images_per_prompt=1)


def test_names_may_have_other_zeros_and_count_from_one(folder: Path) -> None:
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f"{int(path.stem) + 1:05d}.png"))
    (folder / "00002/samples/00002.png").unlink()
    images = read_folder(folder)
    assert images.names[0] == ["00000/samples/00001.png", "00000/samples/00002.png"]
    assert faults(images) == {"00002/samples/00002.png": "missing"}


def test_images_of_several_modes_and_orientations_are_read_as_they_are_seen(folder: Path) -> None:
    turned = Image.fromarray(PIXELS[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    turned.save(folder / "00000/samples/0000.png", exif=exif)
    Image.fromarray(PIXELS[0]).convert("LA").save(folder / "00000/samples/0001.png")
    first, second = read_folder(folder).load(0)
    assert not isinstance(first, str) and first.shape == (7, 5, 3)
    assert not isinstance(second, str) and second.shape == (5, 7, 3)


def test_files_that_are_no_images_of_the_layout_are_told(folder: Path) -> None:
    (folder / "00001/samples/0000.jpg").write_text("")
    (folder / "00001/samples/grid.png").write_text("")
    found = read_folder(folder).ignored
    assert found == ["00001/samples/0000.jpg", "00001/samples/grid.png"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: f.rename(f.with_name("x")), "no such folder of images"),
        (lambda f: [p.rename(f / f"x{p.name}") for p in list(f.iterdir())], "holds no folder 0000"),
        (
            lambda f: [p.rename(p.with_suffix(".gif")) for p in f.rglob("*.png")],
            r"no image in samples/ of its 3 folders: .*/00000/samples holds 0000\.gif, 0001\.gif; allowed are PNG",
        ),
        (
            lambda f: (
                [p.rename(p.parent.parent / p.name) for p in f.rglob("*.png")]
                and [p.rmdir() for p in f.rglob("samples")]
            ),
            r"/00000 holds 0000\.png, 0001\.png, metadata\.jsonl; allowed",
        ),
        (lambda f: (f / "00001/metadata.jsonl").unlink(), "metadata.jsonl: no such file"),
        (lambda f: (f / "00001/metadata.jsonl").write_text("{"), "metadata.jsonl: is not JSON"),
        (lambda f: (f / "00001/metadata.jsonl").write_bytes(b"\xff"), "cannot be read"),
        (lambda f: (f / "00001/metadata.jsonl").write_text('{"text": "a"}'), "one GenEval record"),
        (lambda f: (f / "1").mkdir(), "00001 and 1 are one number"),
    ],
)
def test_a_folder_that_cannot_be_judged_is_refused_in_one_line(
    folder: Path, damage: Callable[[Path], object], named: str
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=named) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_prompt_set_is_refused(folder: Path) -> None:
    with pytest.raises(
        UserError, match="asks for 'a photo of a cat', the prompt set for 'a photo of two"
    ):
        read_folder(folder, prompts=PROMPTS[1:])
    with pytest.raises(UserError, match="00002 lies beyond the 2 prompts of the set"):
        read_folder(folder, prompts=PROMPTS[:2])
    with pytest.raises(UserError, match="or by another record"):
        read_folder(folder, prompts=[replace(PROMPTS[0], spec=RECORDS[1]), *PROMPTS[1:]])


def test_only_images_that_were_written_here_are_cleared(folder: Path) -> None:
    with pytest.raises(UserError, match="holds images from elsewhere"):
        clear_images(folder)
    assert len(read_folder(folder).prompts) == 3
    write_protocol(folder, {"sampling": {"seed": 0}})
    clear_images(folder)
    assert [p.name for p in folder.iterdir()] == ["protocol.json"]
    clear_images(folder / "gone")


def test_the_protocol_beside_the_images_is_read_back_or_refused(folder: Path) -> None:
    assert read_protocol(folder) is None
    write_protocol(folder, {"sampling": {"seed": 0}})
    assert read_protocol(folder) == {"sampling": {"seed": 0}}
    for text in ("{", "[]", '{"sampling": 3}'):
        (folder / "protocol.json").write_text(text)
        with pytest.raises(RunError, match=r"protocol\.json: "):
            read_protocol(folder)
