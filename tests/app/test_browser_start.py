"""A training that is started, stopped and resumed in a real browser, and the playground on its checkpoint: the form answers
while it is filled, focus stays, tokens answer. Skipped where there is no Chromium."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from app_browser import box, open_tab, visited
from app_toys import served, write_toy_run

from t2i_credit.run_folder.layout import numbered_folders

COMMAND = "document.querySelector('#start-command textarea').value"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("started") / "runs"
    write_toy_run(root / "older")
    return root


@pytest.fixture(scope="module")
def address(runs):
    with served(runs, trains=True) as facts:
        yield facts["address"]


def fill(page, **values):
    for name, value in values.items():
        page.locator(f"#start-{name} textarea").fill(value)


def test_a_training_is_started_stopped_and_resumed_and_sampled_from(page, runs):
    page.set_default_timeout(300_000)  # a training begins meanwhile
    page.locator("#start .label-wrap").first.click()
    page.wait_for_function(f"/train.name=shapes-recommended$/.test({COMMAND})")
    fill(page, steps="many", name="from-page")
    page.wait_for_selector("#start-said [role=alert]")
    assert "train.steps: value 'many' is not allowed" in page.locator("#start-said").inner_text()
    fill(page, steps="5000", per_step="2", group_size="2")
    page.wait_for_function(f"/train.steps=5000 .*train.name=from-page$/.test({COMMAND})")
    assert page.locator("#start-said [role=alert]").count() == 0
    assert not (runs / "from-page").exists()
    page.locator("#start-go").click()
    page.wait_for_selector("#start-act")
    page.locator("#start-go").click()  # a second one
    page.wait_for_selector("#start-said [role=alert]")
    assert "one is trained at a time" in page.locator("#start-said").inner_text()
    page.wait_for_selector(".state.running")  # it appeared, and was chosen
    assert page.locator("#run input").input_value().startswith("from-page")
    page.wait_for_selector("#training-curves .plot svg")  # a step is finished
    page.locator("#start-act", has_text="Stop from-page").click()
    page.wait_for_selector(".state.stopped")
    page.wait_for_selector("#start-act:has-text('Resume from-page')")
    assert page.evaluate("document.activeElement.id") == "start-act"
    (kept,) = numbered_folders(runs / "from-page" / "checkpoints")

    open_tab(page, "Playground")
    page.wait_for_function(
        f"document.querySelector('#play-model input').value.includes('step {kept}')"
    )
    page.locator("#play-go").click()
    page.wait_for_selector("#play-said [data-done]")
    page.wait_for_selector(".fresh .tile.heat canvas")
    place = box(page, ".fresh .tile.heat")
    tile = page.locator(".fresh .tile.heat").first
    tile.click(position={"x": place["width"] * 3.5 / 6, "y": place["height"] * 1.5 / 6})
    assert "row 1, column 3" in page.locator(".fresh .inspector-head").inner_text()
    assert page.locator(".fresh .card").first.locator(".mark.pinned:visible").count() == 2
    shown = page.locator(".fresh [data-number=credit]").get_attribute("data-value")
    with page.expect_download() as download:
        page.locator('.fresh [data-save="csv"]').click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert np.float32(rows[1 * 6 + 3]["credit"]) == np.float32(shown)
    page.locator('.chips [data-map="signed_contrast"]').click()
    assert page.evaluate("document.activeElement.dataset.map") == "signed_contrast"
    tile = page.locator(".fresh .tile").first
    tile.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert "Sample" in page.locator(".fresh .inspector-head").inner_text()

    open_tab(page, "Training")
    page.locator("#start-act", has_text="Resume from-page").click()
    page.wait_for_selector(".state.running")
    page.locator("#start-act", has_text="Stop from-page").click()
    page.wait_for_selector(".state.stopped")


def test_the_panel_stands_in_view_on_a_phone(browser, address):
    with visited(browser, address) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator("#start .label-wrap").first.click()
        page.wait_for_function(f"{COMMAND} !== ''")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert box(page, "#start-go")["width"] > 100
