"""The page of a step of text: every token with its numbers, colours by sign, nothing of a prompt or answer is markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.errors import RunError
from t2i_credit.heatmap.text import page, write_text_heatmap
from t2i_credit.run_folder.writer import RunWriter

EVIL = '<script>alert("x")</script>'


def sample(**changed: Any) -> dict[str, Any]:
    return {
        "index": 0,
        "group": 0,
        "prompt": "2+3:",
        "negative": "2+3, answer wrongly:",
        "completion": "a b\n",
        "reward": 1.0,
        "reward_parts": {"correct": 1.0},
        "advantage": 0.5,
        "gold": False,
        "tokens": ["a", " ", "b\n"],
        "logprobs": [-0.5, -1.0, -2.0],
        "negative_logprobs": [-1.5, -1.0, -0.25],
        "contrast": [0.37, 0.0, 4.0],
        "entropy": [1.0, 2.0, None],
        "credit": [0.5, 1.0, 1.5],
        "token_advantages": [0.25, 0.5, 0.75],
    } | changed


class Pills(HTMLParser):
    """Collects the pills, and every tag's name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pills: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if given.get("class") == "pill":
            self.pills.append(given | {"text": ""})

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.pills and self.tags[-1] == "span" and not self.pills[-1]["text"]:
            self.pills[-1]["text"] = data


def test_every_token_has_its_numbers() -> None:
    found = Pills(page("run", 10, [sample()]))
    assert [pill["text"] for pill in found.pills] == ["a", "\u00b7", "b\u21b5"]
    assert found.pills[0]["data-tip"].split("\n") == [
        "'a'",
        "log p under the prompt: -0.500",
        "log p under the negative: -1.500",
        "contrast: 0.370",
        "credit: 0.500",
        "advantage x credit: 0.250",
        "entropy, nats: 1.000",
    ]
    assert found.pills[2]["data-tip"].endswith("entropy, nats: -")
    shown = "".join(found.texts)
    assert "2+3, answer wrongly:" in shown and "reward 1.000, advantage 0.500" in shown


def test_colours_part_around_the_middle_of_each_view() -> None:
    def brightness(style: str, view: str) -> tuple[int, ...]:
        code = re.search(rf"--{view}:#(\w\w)(\w\w)(\w\w)", style)
        assert code
        return tuple(int(part, 16) for part in code.groups())

    first, middle, last = (pill["style"] for pill in Pills(page("run", 1, [sample()])).pills)
    # a credit of 1 and a signed contrast of 0 have the palette's middle, nearly white
    assert min(brightness(middle, "credit")) > 240 and min(brightness(middle, "signed")) > 240
    assert brightness(first, "credit") != brightness(last, "credit")
    # PuOr: what fits the negative prompt is brown, what fits the prompt is violet
    assert brightness(last, "signed")[0] > brightness(last, "signed")[2]
    assert brightness(first, "signed")[2] > brightness(first, "signed")[1]


def test_nothing_in_a_prompt_or_an_answer_is_markup() -> None:
    evil = sample(
        prompt=EVIL, negative=f'"{EVIL}', tokens=[EVIL, '" onmouseover="alert(1)', "&amp;"]
    )
    html = page(EVIL, 1, [evil])
    found = Pills(html)
    assert "script" not in found.tags and "<script" not in html
    assert [pill["text"] for pill in found.pills] == [EVIL, '"\u00b7onmouseover="alert(1)', "&amp;"]
    assert all(
        set(pill) == {"class", "tabindex", "style", "data-tip", "text"} for pill in found.pills
    )
    assert not re.search(r"(src|href)=|url\(|@import", html)  # self-contained


def test_what_is_no_visible_character_is_written_as_its_escape() -> None:
    hidden = sample(prompt="a\u202eb\nc", tokens=["\x00", "\u202e", "\u00e9 "])
    found = Pills(page("run", 1, [hidden]))
    assert [pill["text"] for pill in found.pills] == [r"\x00", r"\u202e", "\u00e9\u00b7"]
    assert r"a\u202eb" + "\nc" in "".join(found.texts)


def test_a_run_without_a_negative_prompt_has_no_contrast_to_show() -> None:
    bare = sample(negative=None)
    for key in ("negative_logprobs", "contrast"):
        del bare[key]
    html = page("run", 1, [bare])
    assert "view-credit" in html and "view-signed" not in html and "answer wrongly" not in html


def test_messages_are_shown_with_their_roles_and_references_are_marked() -> None:
    talk = [{"role": "user", "content": "2+3?"}]
    html = page("run", 1, [sample(prompt=talk, gold=True), sample(group=1)])
    assert "user: 2+3?" in html and html.count("reference answer</span>") == 1
    assert html.count("<section>") == 2


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    return RunWriter.create(
        tmp_path / "run", config={"grpo": {}, "train": {"steps": 2}}, environment={}, total=2
    )


def test_the_page_of_a_step_lies_in_the_run(run: RunWriter, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not recorded; recorded: none yet"):
        write_text_heatmap(run.path)
    for step in (1, 2):
        run.write_text_step(step, [sample(reward=float(step))], group_size=1)
    written = write_text_heatmap(run.path)
    assert written == run.path / "heatmaps" / "000002" / "tokens.html"
    assert "reward 2.000" in written.read_text()
    other = write_text_heatmap(run.path, 1, tmp_path / "pages")
    assert other.parent == tmp_path / "pages" and "reward 1.000" in other.read_text()
    with pytest.raises(RunError, match="step 7 is not recorded; recorded: 1, 2"):
        write_text_heatmap(run.path, 7)


def test_a_damaged_step_is_one_line(run: RunWriter) -> None:
    folder = run.write_text_step(1, [sample()], group_size=1)
    (folder / "samples.json").write_text(json.dumps({"text": True, "samples": [{"tokens": []}]}))
    with pytest.raises(RunError, match=r"000001: not a recorded step of text: KeyError"):
        write_text_heatmap(run.path)
