"""The page of an evaluation: complete in itself, escaped, failures first, boxes where they were found."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.measure.evaluation.report import THUMBNAIL, write_report
from t2i_credit.measure.evaluation.scores import Evaluation, paired

EVIL = "<script>alert('x')</script> & \"quotes\" </style>"


def evaluation(verdicts: list[list[bool]], **changed: Any) -> Evaluation:
    """One prompt a row, one image a verdict; the tasks take turns."""
    records = []
    for p, row in enumerate(verdicts):
        tag = ("colors", "counting")[p % 2]
        text = EVIL if p == 0 else f"a photo of number {p}"
        for g, right in enumerate(row):
            records.append(
                {
                    "filename": f"{p:05d}/samples/{g:04d}.png",
                    "tag": tag,
                    "prompt": text,
                    "correct": right,
                    "reason": "" if right else f"expected {EVIL}\nexpected more",
                    "metadata": json.dumps({"tag": tag, "prompt": text}),
                    "details": json.dumps({"cup": [[1.0, 2.0, 5.0, 8.0, 0.75]]}),
                    "colors": {"cup": ["red"]},
                    "score": float(right),
                    "fault": "",
                    "prompt_index": p,
                    "sample_index": g,
                }
            )
    protocol = Protocol(images_per_prompt=len(verdicts[0]), cfg_scale=2.0)
    count = len(verdicts)
    about = {"model": "runs/try", "step": 7, "prompts": "mine.jsonl"}
    found = Evaluation(protocol, [None] * count, [None] * count, records, about)
    return replace(found, **changed)


class Page(HTMLParser):
    """The tags of a page, in order, with their attributes; the texts apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("script", "style"):
            self.text += data + " "

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images of two prompts, 20 x 10 pixels; one of the four is missing."""
    for name in ("00000/samples/0000.png", "00000/samples/0001.png", "00001/samples/0000.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), "red").save(tmp_path / name)
    return tmp_path


def show(found: Evaluation, folder: Path | None, **more: Any) -> Page:
    path = (folder or more.pop("at")) / "page.html"
    assert write_report(path, "mine", found, images=folder, **more) == path
    return Page(path)


def test_prompts_and_reasons_are_text_and_never_markup(folder: Path) -> None:
    page = show(evaluation([[True, False], [False, False]]), folder, warnings=[EVIL])
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert page.text.count(EVIL) == 1 + 1 + 3  # the prompt, the warning, three reasons


def test_the_page_needs_nothing_beside_it(folder: Path) -> None:
    page = show(evaluation([[True, False], [False, False]]), folder)
    for _, attributes in page.tags:
        for key in ("src", "href"):
            assert (attributes.get(key) or "data:").startswith("data:")
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    assert "color-scheme" in text and "prefers-color-scheme: dark" in text
    assert page.all("meta", name="viewport")


def test_failures_come_first_and_every_image_is_there(folder: Path) -> None:
    rows = [[True, True], [True, False], [False, False], [True, True], [False, True]]
    found = evaluation(rows)
    found.records[9]["fault"] = found.records[9]["reason"] = "missing"
    found.records[9]["correct"] = False
    page = show(found, folder)
    numbers = re.findall(r"(\d{5})", page.text)
    # of those with none right the one with a missing image, then by number
    assert numbers == ["00004", "00002", "00001", "00000", "00003"]
    verdicts = [figure["data-verdict"] for figure in page.all("figure")]
    assert len(verdicts) == 10
    assert {v: verdicts.count(v) for v in verdicts} == {"wrong": 4, "missing": 1, "right": 5}
    assert [a["data-task"] for a in page.all("article")] == [
        "colors",
        "colors",
        "counting",
        "colors",
        "counting",
    ]


def test_filters_exist_for_what_there_is(folder: Path) -> None:
    page = show(evaluation([[True, False], [False, False]]), folder)
    values = [button["data-value"] for button in page.all("button")]
    assert values == ["", "wrong", "right", "", "counting", "colors"]


def test_boxes_lie_where_they_were_found_on_the_images_own_scale(folder: Path) -> None:
    page = show(evaluation([[True, False], [False, False]]), folder)
    assert [svg["viewbox"] for svg in page.all("svg")] == ["0 0 20 10"] * 3
    boxes = page.all("rect", class_="line")
    assert len(boxes) == 3
    assert boxes[0] == {"class": "line", "x": "1.0", "y": "2.0", "width": "4.0", "height": "6.0"}
    assert page.text.count("red cup 0.75") == 4
    assert page.text.count("no image") == 1


def test_a_large_image_becomes_a_small_one_and_a_small_one_stays(tmp_path: Path) -> None:
    (tmp_path / "00000/samples").mkdir(parents=True)
    noise = Image.effect_noise((1024, 512), 90).convert("RGB")
    noise.save(tmp_path / "00000/samples/0000.png")
    noise.crop((0, 0, 32, 16)).save(tmp_path / "00000/samples/0001.png")
    page = show(evaluation([[True, True]]), tmp_path)
    pictures = []
    for image in page.all("img"):
        kind, data = str(image["src"]).split(";base64,")
        pictures.append((kind, Image.open(io.BytesIO(base64.b64decode(data)))))
    assert [(kind, p.size) for kind, p in pictures] == [
        ("data:image/jpeg", (THUMBNAIL, THUMBNAIL // 2)),
        ("data:image/png", (32, 16)),
    ]
    assert [svg["viewbox"] for svg in page.all("svg")] == ["0 0 1024 512", "0 0 32 16"]
    assert pictures[1][1].tobytes() == noise.crop((0, 0, 32, 16)).tobytes()


def test_scores_intervals_and_protocol_are_on_the_page(folder: Path) -> None:
    found = evaluation([[True, False], [False, False], [True, True], [True, False]])
    page = show(found, folder)
    words = " ".join(page.text.split())
    for row in found.summary().values():
        assert f"{row['correct']:.3f}" in words
        assert f"{row['low']:.3f} to {row['high']:.3f}" in words
    assert "runs/try, step 7" in words and "mine.jsonl (4)" in words
    assert "guidance scale 2.0" in words and "overlap threshold off" in words
    widths = [i["style"] for i in page.all("i", class_="bar") if "style" in i]
    assert widths == ["width: 25.00%", "width: 75.00%"]  # counting 1 of 4, colors 3 of 4


def test_a_comparison_shows_what_was_gained_and_lost(folder: Path) -> None:
    before = evaluation([[True, False], [False, False]], about={"model": "shapes"})
    after = evaluation([[False, True], [False, True]])
    changes = paired(before, after)
    page = show(after, folder, before=before, before_images=folder, changes=changes)
    assert [f["data-change"] for f in page.all("figure")] == ["lost", "gained", "", "gained"]
    words = " ".join(page.text.split())
    # colors 1/2 -> 1/2, counting 0 -> 1/2
    assert "+0.250 from 0.250" in words and "against shapes" in words
    assert words.count("before: right") == 1 and words.count("before: wrong") == 3
    assert len(page.all("img")) == 6
    assert "1 of 2 right, was 0" in words


def test_an_evaluation_without_images_still_has_a_page(tmp_path: Path) -> None:
    page = show(evaluation([[True, False]]), None, at=tmp_path)
    assert not page.all("img") and page.text.count("no image") == 2
