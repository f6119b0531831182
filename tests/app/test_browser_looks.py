"""How the page looks and what it keeps, in a real browser: colours of map and legend, widths, what was chosen, who waits.
Skipped where there is no Chromium."""

from __future__ import annotations

from io import BytesIO

import pytest
from app_browser import TABS, asked, box, choose_run, open_tab, visited
from app_toys import PROMPT, W, write_toy_run
from PIL import Image

from t2i_credit.run_folder.reader import RunReader

pytestmark = pytest.mark.xdist_group("app")
# [r, g, b, a] of one token of the large map
TOKEN = """token => { const canvas = document.querySelector('.tile.stage canvas');
    const place = [token % canvas.width, Math.floor(token / canvas.width), 1, 1];
    return [...canvas.getContext('2d').getImageData(...place).data]; }"""
# [r, g, b, a] of the legend at a share of its width
MARK = """share => { const canvas = document.querySelector('.stage-legend canvas');
    return [...canvas.getContext('2d').getImageData(Math.round(256 * share), 0, 1, 1).data]; }"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    write_toy_run(root / "other", seed=1)
    write_toy_run(root / "toy")  # the newest, so it is chosen at first
    return root


def shown_light(page, tile):
    """The darkest and the brightest pixel of the first such tile, as the screen shows it, 0 to 255."""
    with Image.open(BytesIO(page.locator(tile).first.screenshot())) as picture:
        low, high = picture.convert("L").getextrema()
    return low, high


def test_the_legend_has_the_colours_of_the_map_at_every_opacity(page, runs):
    open_tab(page, "Credit maps")
    arrays = RunReader(runs / "toy").step(9).arrays
    place = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    values = arrays["token_advantages"][place]
    limit = page.locator(".stage-legend .high").inner_text()
    limit = float(limit.lstrip("≥ ").replace("+", ""))
    for opacity in ("0.2", "0.8", "1"):
        page.locator(".opacity input").fill(opacity)
        for token in (0, 4, W + 2):
            strength = min(1.0, abs(float(values[token])) / limit) ** 0.5
            share = 0.5 * (1 + strength * (1 if values[token] > 0 else -1))
            drawn, told = page.evaluate(TOKEN, token), page.evaluate(MARK, share)
            assert drawn[3] == told[3] == round(255 * float(opacity))
            assert max(abs(a - b) for a, b in zip(drawn, told, strict=True)) <= 12, token
    assert page.evaluate(MARK, 0.5) == [0x17, 0x18, 0x1A, 255]  # 0 is dark and without colour


def test_tokens_that_earned_the_reward_shine_on_the_training_page(page):
    page.wait_for_selector("#training-newest .tile.heat canvas")
    dark, bright = shown_light(page, "#training-newest .tile.heat")
    assert dark < 70 and bright > 120


def test_the_picture_stands_in_full_colour_beside_its_map(page):
    open_tab(page, "Credit maps")
    picture, stage = (box(page, f".pair .tile.{name}") for name in ("plate", "stage"))
    assert picture["width"] == pytest.approx(stage["width"], abs=2)
    assert picture["y"] == stage["y"] and picture["x"] < stage["x"]
    assert page.locator(".tile.plate img.grey").count() == 0
    page.locator(".tile.plate").hover(position={"x": 4, "y": 4})
    assert "Token 0" in page.locator(".inspector-head").inner_text()
    assert page.locator(".pair .mark:visible").count() == 2


def test_smooth_draws_the_map_without_edges(page):
    open_tab(page, "Credit maps")
    style = "getComputedStyle(document.querySelector('.tile.stage canvas')).imageRendering"
    assert page.evaluate(style) == "pixelated"
    page.get_by_label("Smooth").check()
    assert page.evaluate(style) == "auto"


def test_a_wide_screen_is_used_and_nothing_runs_over_its_edge(page):
    page.set_viewport_size({"width": 1920, "height": 1080})
    for name in TABS:
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1920, name
    open_tab(page, "Credit maps")
    assert box(page, ".tile.stage")["width"] > 500


def test_the_chosen_step_and_prompt_are_kept_while_another_tab_is_open(page):
    open_tab(page, "Credit maps")
    head = page.locator(".maps-head")
    page.locator(".step-range").fill("0")
    page.wait_for_function("document.querySelector('.maps-head').innerText.includes('step 1 ·')")
    prompts = page.locator(".maps-head select")
    chosen = "one => one.selectedOptions[0].text"
    assert prompts.evaluate(chosen) == PROMPT
    prompts.select_option(index=1)
    page.wait_for_function(
        f"document.querySelector('.maps-head select').selectedOptions[0].text !== {PROMPT!r}"
    )
    other = prompts.evaluate(chosen)
    page.get_by_role("tab", name="Training").click()
    with page.expect_response("**/queue/join*"):
        page.get_by_role("tab", name="Credit maps").click()
    page.wait_for_timeout(2000)
    assert "step 1 ·" in head.inner_text() and prompts.evaluate(chosen) == other
    choose_run(page, "other")
    page.wait_for_function("document.querySelector('.maps-head').innerText.includes('step 9 ·')")


def test_names_of_found_objects_stand_below_the_picture(page):
    open_tab(page, "Evaluation")
    assert "found: circle" in page.locator(".verdict figcaption").first.inner_text()


def test_a_second_visitor_is_told_to_wait_and_can_cancel(browser, address):
    with visited(browser, address) as first, visited(browser, address) as second:
        for page in (first, second):
            open_tab(page, "Playground")
        waiting = []  # the second one's turn, which comes when the test says so

        def catch(route):
            form = len(asked(route)["data"]) > 5  # nothing else says as much
            waiting.append(route) if form else route.continue_()

        second.route("**/queue/join*", catch)
        first.get_by_label("number input for Images").fill("16")
        first.locator("#play-go").click()
        first.wait_for_selector("#play-said .progress")
        second.locator("#play-go").click()
        second.wait_for_function(
            "/waiting for the generator/.test(document.querySelector('#play-said').innerText)"
        )
        second.locator("#play-cancel").click()
        second.wait_for_function("document.querySelector('#play-said').innerText === 'Cancelled.'")
        first.locator("#play-cancel").click()
        first.wait_for_selector("#play-said [data-done]")
        stamp = second.locator("#play-said [data-done]").get_attribute("data-done")
        second.wait_for_timeout(1500)  # stamps are seconds
        assert waiting
        for route in waiting:
            route.continue_()
        done = "document.querySelector('#play-said [data-done]')"
        second.wait_for_function(f"stamp => {done} && {done}.dataset.done !== stamp", arg=stamp)
        second.wait_for_function("document.querySelector('#play-said').innerText === 'Cancelled.'")
        assert second.locator("#play-pictures .card").count() == 0
