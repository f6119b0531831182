"""One place in a real browser: the likeliest other codes beside the drawn one, and its credit through training. Skipped where there
is no Chromium."""

from __future__ import annotations

import numpy as np
import pytest
from app_browser import PATIENCE, choose_run, open_tab
from app_others import K, add_others
from app_toys import PROBE, H, W, served, write_toy_run, write_toy_step

from t2i_credit.app.single_file import write_page
from t2i_credit.run_folder.alternatives import read_alternatives
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter

TOKEN = 1 * W + 2
COLOUR = """k => { const canvas = document.querySelectorAll('.others-row canvas')[k];
    return [...canvas.getContext('2d').getImageData(32, 32, 1, 1).data.slice(0, 3)]; }"""
FIRST_STEP = "document.querySelector('.step-says').innerText.startsWith('step 1 ·')"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    write_toy_run(root / "older")
    add_others(write_toy_run(root / "toy"))
    return root


def keep_token(page):
    """Keeps the token of row 1, column 2 of the chosen sample; its number in the step."""
    stage = page.locator(".tile.stage")
    size = stage.bounding_box()
    stage.click(position={"x": 2.5 * size["width"] / W, "y": 1.5 * size["height"] / H})
    return int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))


def check_place(page, run):
    """Of the newest step's probe: its codes, their patches, and a click on the first step of its plot."""
    page.get_by_label("prompt", exact=True).select_option(index=1)
    # the list has changed at once; the address says what is shown
    asked = "prompt => new URLSearchParams(location.hash.slice(1)).get('prompt') === prompt"
    page.wait_for_function(asked, arg=PROBE)
    place = keep_token(page)
    page.wait_for_function(f"document.querySelectorAll('.others-row figure').length === {K + 1}")
    record = RunReader(run).step(9)
    assert record.samples[place]["prompt"] == PROBE
    found = read_alternatives(record, place)
    shown = page.locator(".others-row figure")
    codes = [int(shown.nth(k).get_attribute("data-code")) for k in range(K + 1)]
    assert codes == [record.arrays["tokens"][place, TOKEN], *found.codes[TOKEN]]
    chance = 100 * np.exp(found.logprobs[TOKEN, 0])
    assert f"{chance:.0f}%" in shown.nth(1).inner_text()
    pictures = np.asarray(found.pictures)
    for k in range(K):
        patch = pictures[(k * H + 1) * found.side, 2 * found.side]
        assert page.evaluate(COLOUR, k + 1) == patch.tolist()
    page.wait_for_function(
        "document.querySelector('.through-says').innerText.includes('step 9: credit')"
    )
    page.locator(".through-plot").click(position={"x": 6, "y": 20})
    page.wait_for_function(FIRST_STEP)
    assert page.locator(".inspector-head h3").inner_text() == f"Token {TOKEN}"
    now = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    assert now == place  # the same noise
    credit = RunReader(run).step(1).arrays["credit"][place, TOKEN]
    assert f"step 1: credit {credit:.2f}" in page.locator(".through-says").inner_text()


def test_a_kept_token_shows_other_codes_and_itself_through_training(page, runs):
    choose_run(page, "toy")
    open_tab(page, "Credit maps")
    page.wait_for_function("document.querySelector('#run input').value.startsWith('toy')")
    check_place(page, runs / "toy")
    choose_run(page, "older")
    page.wait_for_function("!document.querySelector('.inspector-head').innerText.includes('Token')")
    keep_token(page)
    assert "log.alternatives=4" in page.locator(".others").inner_text()
    assert page.locator(".others-row figure").count() == 0


def test_one_file_shows_the_same(browser, runs, tmp_path):
    file = write_page(runs / "toy", None, tmp_path / "one file.html")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector(".tile.stage canvas")
    check_place(page, runs / "toy")
    assert not complaints, complaints
    context.close()


def test_where_all_of_a_step_is_flat_the_introduction_takes_another_step(browser, tmp_path):
    run = write_toy_run(tmp_path / "runs/flat")
    write_toy_step(RunWriter(run), 11, alike=True)
    with served(run.parent) as facts:
        for address in (facts["address"], write_page(run).as_uri()):
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            if address.startswith("http"):
                page.wait_for_selector(".status")
                open_tab(page, "Credit maps")
            page.wait_for_selector(".tile.stage canvas")
            assert page.locator(".step-says").inner_text().startswith("step 11")
            told = page.locator(".intro-grid").text_content()
            assert "It is of step 9: at step 11 every group's rewards are equal." in told
            assert "this group pushes nothing" not in told and "the best" in told
            page.close()
