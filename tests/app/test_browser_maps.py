"""The credit maps in a real browser, read back from the screen: what the colours say is what the numbers are, labels do not
touch, a phone shows what was tapped, and large runs are quick. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from app_browser import PATIENCE, box, choose_run, open_tab
from app_toys import start_toy_run, write_large_run, write_toy_run, write_toy_step
from PIL import Image
from scipy.stats import spearmanr

from t2i_credit.heatmap.colours import diverging, sequential
from t2i_credit.heatmap.draw import token_map
from t2i_credit.heatmap.files import sample_view
from t2i_credit.heatmap.sample import common_scale
from t2i_credit.run_folder.reader import RunReader

MAPS = ("token_advantages", "credit", "signed_contrast")
# the spans of the legend's labels that are shown, and the bar's, in pixels
LABELS = """() => { const span = (one) => { const box = one.getBoundingClientRect(); return [box.left, box.right]; };
    const shown = [...document.querySelectorAll('.stage-legend .marks span')].filter((one) => one.style.visibility !== 'hidden');
    return [span(document.querySelector('.stage-legend .marks')), ...shown.map(span).sort((a, b) => a[0] - b[0])]; }"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    write_toy_run(root / "toy")
    extreme = start_toy_run(root / "extreme")
    for step, times in enumerate((1e-30, 1e-7, 1.0, 1e4, 1e30), 1):
        write_toy_step(extreme, step, times=times)
    extreme.finish("finished")
    flat = start_toy_run(root / "flat")
    write_toy_step(flat, 1)
    write_toy_step(flat, 2, alike=True)
    flat.finish("finished")
    write_large_run(root / "large")  # the newest, so it is chosen at first
    return root


def screen(page, css):
    """What the screen shows of an element, (h, w, 3)."""
    with Image.open(BytesIO(page.locator(css).screenshot())) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def read_back(page, grid):
    """(T,) shares of the legend's width at which it has the colour that the screen shows in the middle of each token."""
    stage, legend = screen(page, ".tile.stage"), screen(page, ".stage-legend canvas")
    legend = legend[len(legend) // 2]
    height, width = stage.shape[:2]
    shares = []
    for token in range(grid[0] * grid[1]):
        y = int((token // grid[1] + 0.5) * height / grid[0])
        x = int((token % grid[1] + 0.5) * width / grid[1])
        colour = np.median(stage[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3), axis=0)
        shares.append(np.abs(legend - colour).sum(1).argmin() / (len(legend) - 1))
    return np.array(shares)


def chosen_values(page, record, name):
    """(T,) of the chosen sample: the numbers that its map shows."""
    place = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    return (
        record.signed_contrast()[place] if name == "signed_contrast" else record.arrays[name][place]
    )


@pytest.mark.parametrize(("run", "dark"), [("large", False), ("toy", True)])
def test_the_colour_in_the_middle_of_a_token_says_its_number(page, runs, run, dark):
    if dark:
        page.locator(".theme").click()
    choose_run(page, run)
    open_tab(page, "Credit maps")
    record = RunReader(runs / run).step()
    newest = f"step {record.step} ·"
    page.wait_for_function(
        "told => document.querySelector('.maps-head').innerText.includes(told)", arg=newest
    )
    assert page.locator('.choice [data-map="reward_map"]').count() == (run == "large")
    for name in (*MAPS, "reward_map") if run == "large" else MAPS:
        page.locator(f'.choice [data-map="{name}"]').click()
        palettes = page.locator(".palette option").all_inner_texts()
        assert len(palettes) >= 3
        for number, palette in enumerate(palettes):
            page.locator(".palette select").select_option(palette)
            page.locator(".strip button").nth((number + dark) % 2).click()  # one light, one dark
            page.mouse.move(0, 0)
            values = chosen_values(page, record, name)
            found = spearmanr(read_back(page, record.grid), values).statistic
            assert found >= 0.98, (name, palette, number, found)


def test_the_page_draws_what_the_files_show(page, runs):
    open_tab(page, "Credit maps")
    record = RunReader(runs / "large").step()
    views = [sample_view(record, place) for place in range(len(record.samples))]
    scale = common_scale(views)
    place = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    for name in (*MAPS, "reward_map"):
        page.locator(f'.choice [data-map="{name}"]').click()
        values = chosen_values(page, record, name).reshape(record.grid)
        colours = {
            "token_advantages": lambda v: diverging(v, scale.advantage, "RdBu"),
            "credit": lambda v: sequential(v, scale.credit, "BuGn"),
            "signed_contrast": lambda v: diverging(v, scale.contrast, "PuOr"),
            "reward_map": lambda v: diverging(v, scale.map, "PiYG"),
        }[name](values)
        address = page.evaluate("document.querySelector('.tile.stage canvas').toDataURL()")
        with Image.open(BytesIO(base64.b64decode(address.split(",")[1]))) as drawn:
            file = token_map(colours, Image.new("RGB", drawn.size), views[place].image)
            apart = np.asarray(drawn.convert("RGB")).astype(int) - np.asarray(file)
        assert np.abs(apart).max() <= 1, name


def test_a_chosen_map_stays_where_it_is_all_zero_and_says_so(page):
    choose_run(page, "flat")
    open_tab(page, "Credit maps")
    pressed = page.locator('.choice [aria-pressed="true"]')
    page.wait_for_function("/step 2 ·/.test(document.querySelector('.maps-head')?.innerText)")
    assert pressed.get_attribute("data-map") == "credit"  # nobody has chosen yet
    page.locator('.choice [data-map="token_advantages"]').click()
    for step in (1, 2):
        page.locator(".step-number").fill(str(step))
        page.locator(".step-number").press("Enter")
        page.wait_for_function(
            f"/step {step} ·/.test(document.querySelector('.maps-head').innerText)"
        )
        assert pressed.get_attribute("data-map") == "token_advantages"
    assert "Nothing is pushed" in page.locator(".nothing-pushed").inner_text()
    page.locator(".tile.stage").focus()
    page.keyboard.press("ArrowRight")
    assert "all equal" in page.locator(".spread p").first.inner_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_labels_of_the_legend_never_touch_however_large_the_numbers(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    choose_run(page, "extreme")
    open_tab(page, "Credit maps")
    seen = []
    for place in range(5):
        page.locator(".step-range").fill(str(place))
        page.wait_for_function(
            f"/step \\d+ · {place + 1} of 5/.test(document.querySelector('.maps-head').innerText)"
        )
        (left, right), *labels = page.evaluate(LABELS)
        assert all(one[1] + 3 < other[0] for one, other in pairwise(labels)), labels
        assert labels[0][0] >= left - 1 and labels[-1][1] <= right + 1
        seen.append(page.locator(".stage-legend .marks").inner_text())
    assert len(set(seen)) == 5 and len(labels) >= 3


def test_a_phone_shows_the_numbers_of_a_tapped_token_and_a_finger_slides_on(browser, address, runs):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector(".status")
    open_tab(page, "Credit maps")
    plate, stage = box(page, ".tile.plate"), box(page, ".tile.stage")
    assert plate["x"] == stage["x"] and plate["y"] + plate["height"] < stage["y"]
    assert plate["width"] > 340
    tile = page.locator(".tile.plate")
    tile.scroll_into_view_if_needed()
    side = plate["width"] / 24
    tile.tap(position={"x": 10.5 * side, "y": 3.5 * side})
    sheet, head = page.locator(".inspector"), page.locator(".inspector-head")
    assert f"Token {3 * 24 + 10}" in head.inner_text()
    record = RunReader(runs / "large").step()
    credit = sheet.locator('[data-number="credit"]')
    place = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    assert float(credit.get_attribute("data-value")) == pytest.approx(
        float(record.arrays["credit"][place, 3 * 24 + 10])
    )
    shown, number = box(page, ".inspector"), credit.bounding_box()
    assert shown["y"] > 300 and shown["y"] + shown["height"] <= 845
    assert number["y"] + number["height"] < 844
    assert page.locator(".loupe canvas").first.is_visible()
    # a finger goes down on the token, and two to the right
    now = box(page, ".tile.plate")
    session = context.new_cdp_session(page)
    points = [(now["x"] + (10.5 + step / 2) * side, now["y"] + 3.5 * side) for step in range(5)]
    for kind, where in (("touchStart", points[0]), *(("touchMove", p) for p in points[1:])):
        touch = {"type": kind, "touchPoints": [{"x": where[0], "y": where[1]}]}
        session.send("Input.dispatchTouchEvent", touch)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function(
        f"document.querySelector('.inspector-head').innerText.includes('Token {3 * 24 + 12}')"
    )
    page.wait_for_timeout(
        1000
    )  # to a browser, a tap right after a slide ends the slide, and is none
    page.get_by_label("let go of the token").tap()
    page.wait_for_function("document.querySelector('.inspector-head').innerText.includes('Sample')")
    assert page.evaluate("document.activeElement.classList.contains('stage')")
    context.close()


# milliseconds from a move of the step slider to the new step on the screen
OPENED = """async ([place, told]) => { const range = document.querySelector('.step-range');
    const began = performance.now();
    range.value = place;
    range.dispatchEvent(new Event('input'));
    const said = document.querySelector('.step-says');
    while (!said.innerText.includes(told) || said.innerText.includes('…')) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - began; }"""
# how many times a second the slider of the film is moved and its frame drawn
SCRUBBED = """async () => { const range = document.querySelector('.film-range');
    const began = performance.now();
    let frames = 0;
    while (performance.now() - began < 2000) {
      range.value = frames++ % (Number(range.max) + 1);
      range.dispatchEvent(new Event('input'));
      await new Promise(requestAnimationFrame);
    }
    return frames / 2; }"""


def test_a_large_run_opens_a_step_soon_and_its_film_can_be_scrubbed(page):
    open_tab(page, "Credit maps")
    steps = [page.evaluate(OPENED, [place, f"{place + 1} of 3"]) for place in (0, 1, 2)]
    page.locator(".film-load").click()
    page.wait_for_function("document.querySelector('.film-caption')?.innerText.includes('step 3')")
    frames = page.evaluate(SCRUBBED)
    print(f"steps opened in {', '.join(f'{one:.0f}' for one in steps)} ms, {frames:.0f} frames/s")
    assert min(steps) < 6000 and frames > 8  # on a machine that trains beside it
