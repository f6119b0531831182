"""The page in a real browser on runs on text: pills, their numbers, colours and keys, a script that is an answer, a run that
goes on. Skipped where there is no Chromium."""

from __future__ import annotations

import csv
import json

import pytest
from app_browser import choose_run, open_tab
from app_toys import ANSWER, LISTS, SCRIPT, G, text_sample, write_text_run, write_toy_run

from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter

TABS = {
    "Training": "#training-newest .answer .pill",
    "Credit maps": ".answer-stage .pill",
    "Playground": "#play-go",
    "Compare": "#compare-curves .plot svg",
    "Evaluation": "#evaluation-bars .notice",
}
COLOUR = "pill => getComputedStyle(pill).backgroundColor"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    write_toy_run(root / "pictures")
    evil = [SCRIPT, "\x00\u202e", '" onmouseover="window.hacked = true', "&lt;b&gt;"]
    write_text_run(root / "script", prompt=SCRIPT, negative=SCRIPT, answers=(evil,) * G)
    write_text_run(root / "live", steps=(1, 2))
    flat = [text_sample(place, ANSWER) for place in range(G)]
    for sample in flat:
        sample |= {"reward": 1.0, "advantage": 0.0, "token_advantages": [0.0] * len(ANSWER)}
    RunWriter(write_text_run(root / "lull")).write_text_step(5, flat, group_size=G)
    write_text_run(root / "text")  # the newest, so it is chosen at first
    return root


def pill(page, token):
    return page.locator(f'.answer-stage .pill[data-token="{token}"]')


def test_training_shows_the_newest_group_as_pills_on_one_scale(page, runs):
    page.wait_for_selector(TABS["Training"])
    rows = page.locator("#training-newest .answer")
    rewards = [row.locator("b").inner_text() for row in rows.all()]
    assert rewards == ["3.00", "2.00", "1.00", "0.00"]
    assert rows.first.locator(".pill").all_inner_texts()[:4] == ["·", "2", "+", "3"]
    red, _, blue = json.loads(
        rows.first.locator(".pill").first.evaluate(COLOUR).replace("rgb(", "[").replace(")", "]")
    )
    assert blue > red  # the best answer is made likelier
    head = page.locator("#training-newest .group-head").inner_text()
    assert "2+3:" in head and "2+3, answer wrongly:" in head
    rows.first.locator(".pill").nth(4).hover()
    quoted, *lines = rows.first.locator(".pill").nth(4).get_attribute("title").split("\n")
    sample = RunReader(runs / "text").samples(9)[3]
    said = dict(line.split(": ") for line in lines)
    shown = {
        "log p, prompt": "logprobs",
        "log p, negative": "negative_logprobs",
        "Evidence": "contrast",
        "Credit": "credit",
        "Token advantage": "token_advantages",
    }
    assert quoted == "'='" and {"Contrast", "Entropy"} == set(said) - set(shown)
    for label, name in shown.items():
        number = float(said[label].replace("\u2212", "-"))
        assert number == pytest.approx(sample[name][4], abs=5.1e-5)
    page.wait_for_selector("#training-curves .chart .plot svg")
    assert "Answer length" in page.locator("#training-curves").inner_text()


def test_a_clicked_token_shows_the_numbers_of_samples_json(page, runs):
    open_tab(page, "Credit maps", TABS["Credit maps"])
    sample = RunReader(runs / "text").samples(9)[2]  # reward 2, so the second best
    page.locator('.maps-head [aria-label="prompt"]').select_option(label="2+3:")
    page.wait_for_function("document.querySelector('.asked').innerText.includes('2+3:')")
    assert "2+3, answer wrongly:" in page.locator(".asked").inner_text()
    page.locator("button.answer").nth(1).locator(".pill").nth(4).click()
    for token in (4, 5):  # "=", "5"
        shown = {
            one.get_attribute("data-number"): float(one.get_attribute("data-value"))
            for one in page.locator(".inspector [data-number]").all()
        }
        contrast = sample["logprobs"][token] - sample["negative_logprobs"][token]
        assert shown.pop("signed_contrast") == pytest.approx(contrast, abs=1e-6)
        assert shown == {name: sample[name][token] for name in LISTS}
        head = page.locator(".inspector-head").inner_text()
        assert f"Token {token}" in head and repr(ANSWER[token]) in head
        page.locator(".answer-stage").focus()
        page.keyboard.press("ArrowRight")


def test_keys_and_the_pointer_lead_to_tokens(page):
    open_tab(page, "Credit maps", TABS["Credit maps"])
    head = page.locator(".inspector-head")
    pill(page, 2).hover()
    assert "Token 2" in head.inner_text()
    page.mouse.move(5, 5)
    assert "Answer" in head.inner_text()
    pill(page, 1).click()
    page.keyboard.press("ArrowDown")  # the second line begins with token 7, so 8 stands below 1
    assert "Token 8" in head.inner_text()
    page.keyboard.press("ArrowUp")
    assert "Token 1" in head.inner_text()
    page.keyboard.press("Escape")
    assert "Answer" in head.inner_text()


def test_maps_palettes_and_steps_change_the_colours(page):
    open_tab(page, "Credit maps", TABS["Credit maps"])
    seen = [pill(page, 1).evaluate(COLOUR)]
    for name in ("credit", "signed_contrast"):
        page.locator(f'.text-choice [data-map="{name}"]').click()
        seen.append(pill(page, 1).evaluate(COLOUR))
    page.locator(".palette select").select_option("RdBu")
    seen.append(pill(page, 1).evaluate(COLOUR))
    assert len(set(seen)) == 4
    listed = page.locator('button.answer[aria-pressed="true"] .pill').nth(1)
    assert listed.evaluate(COLOUR) == seen[-1]  # the desk and the list have one scale
    page.locator(".step-range").fill("0")
    page.wait_for_function(
        "document.querySelector('.maps-head').innerText.includes('step 1 · 1 of 3')"
    )
    step_1 = page.locator(".asked dd").all_inner_texts()
    assert step_1[0] in ("2+3:", "7*8:") and step_1[1].endswith("answer wrongly:")


def test_a_step_that_pushes_nothing_shows_credit_and_the_next_what_was_asked_for(page):
    choose_run(page, "lull")
    open_tab(page, "Credit maps", TABS["Credit maps"])
    pressed = page.locator('.text-choice [aria-pressed="true"]')
    shown = []
    for place, step in enumerate((1, 5, 9)):
        page.locator(".step-range").fill(str(place))
        page.wait_for_function(
            f"document.querySelector('.maps-head').innerText.includes('step {step} ·')"
        )
        shown.append(pressed.get_attribute("data-map"))
    assert shown == ["token_advantages", "credit", "token_advantages"]


def test_the_numbers_can_be_downloaded_and_nothing_else(page, tmp_path):
    open_tab(page, "Credit maps", TABS["Credit maps"])
    assert page.locator("[data-save]").all_inner_texts() == ["CSV"]
    with page.expect_download() as download:
        page.locator('[data-save="csv"]').click()
    download.value.save_as(tmp_path / "numbers.csv")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").read_text().splitlines()))
    assert download.value.suggested_filename == "text-step9-2-3.csv"
    assert len(rows) == G * len(ANSWER)


def test_an_answer_that_is_a_script_is_shown_as_text(page):
    choose_run(page, "script")
    open_tab(page, "Credit maps", ".answer-stage .pill")
    page.wait_for_function("document.querySelector('.asked').innerText.includes('onerror')")
    assert page.locator(".asked dd").first.inner_text() == SCRIPT
    assert page.locator(".answer-stage .pill").all_inner_texts() == [
        SCRIPT.replace(" ", "·"),
        r"\x00\u202e",
        '"·onmouseover="window.hacked·=·true',
        "&lt;b&gt;",
    ]
    pill(page, 0).click()
    for name in ("Training", "Compare", "Evaluation"):
        open_tab(page, name, TABS[name])
    assert page.evaluate("window.hacked") is None


def test_dark_mode_a_phones_width_and_a_run_on_images_beside_it(page):
    page.locator(".theme").click()
    page.set_viewport_size({"width": 390, "height": 844})
    for name, shown in TABS.items():
        open_tab(page, name, shown)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    choose_run(page, "pictures")
    open_tab(page, "Credit maps")  # the picture is back
    assert page.locator(".answer-stage").count() == 0
    open_tab(page, "Training", "#training-newest .card")


def test_a_new_step_brings_new_rows_and_nothing_else_touches_them(page, runs):
    choose_run(page, "live")
    page.wait_for_function(
        "document.querySelector('#training-newest').innerText.includes('step 2')"
    )
    page.evaluate("document.querySelector('#training-newest .answer').dataset.old = 1")
    with (runs / "live/metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "reward": 0.5, "answer_length": 77.0}\n')
    page.wait_for_function("document.querySelector('.status').innerText.includes('77.0')")
    assert page.locator("#training-newest [data-old]").count() == 1
    samples = [text_sample(place, ANSWER) for place in range(G)]
    RunWriter(runs / "live").write_text_step(10, samples, group_size=G)
    page.wait_for_function(
        "document.querySelector('#training-newest').innerText.includes('step 10')"
    )
    assert page.locator("#training-newest [data-old]").count() == 0
