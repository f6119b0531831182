"""How the page looks and what it keeps, in a real browser: colours of map and legend, widths, what was chosen, who waits.
Skipped where there is no Chromium."""

from __future__ import annotations

from io import BytesIO

import pytest
from app_browser import TABS, asked, box, choose_run, open_tab, visited
from app_toys import PROMPT, W, write_toy_run
from PIL import Image


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


def test_where_the_picture_shows_through_it_shows_through_the_legend_too(page):
    open_tab(page, "Credit maps")
    shown = "css => getComputedStyle(document.querySelector(css)).opacity"
    slider = page.locator(".opacity input")
    assert not slider.is_visible() and page.evaluate(shown, ".tile.stage canvas") == "1"
    page.locator('[data-mode="dimmed"]').click()
    page.get_by_label("Object outlines").uncheck()
    for opacity in ("0.4", "0.8"):
        slider.fill(opacity)
        assert page.evaluate(shown, ".tile.stage canvas") == opacity
        assert page.evaluate(shown, ".stage-legend canvas") == opacity
        # above on the picture's white, below on its black: the ends of what can be seen under one colour
        low, high = shown_light(page, ".stage-legend .bar")
        dark, bright = shown_light(page, ".tile.stage")
        assert low - 6 <= dark and bright <= high + 6
    page.locator('[data-mode="lines"]').click()
    assert page.evaluate(shown, ".stage-legend canvas") == "1"


def test_each_way_to_show_map_and_picture_shows_what_it_says(page):
    open_tab(page, "Credit maps")
    stage = page.locator(".tile.stage")
    seen = {}
    for mode, drawn in (("lines", True), ("map", True), ("dimmed", True), ("picture", False)):
        page.locator(f'[data-mode="{mode}"]').click()
        page.mouse.move(0, 0)
        assert stage.locator("canvas").is_visible() == drawn
        assert page.locator('.view [aria-pressed="true"]').inner_text().lower() == mode
        seen[mode] = stage.screenshot()
    assert len(set(seen.values())) == 4
    page.get_by_label("Object outlines").uncheck()  # outlines stand on the picture here, too
    assert stage.locator("svg path").count() == 0


def test_nothing_is_dark_where_nothing_is_pushed_on_the_training_page(page):
    page.wait_for_selector("#training-newest .tile.heat canvas")
    legend = page.locator("#training-newest .legend canvas")
    middle = legend.evaluate(
        "one => [...one.getContext('2d').getImageData(128, 0, 1, 1).data.slice(0, 3)]"
    )
    assert min(middle) > 240 and max(middle) - min(middle) < 4


def test_the_picture_stands_in_full_colour_beside_its_map(page):
    open_tab(page, "Credit maps")
    picture, stage = (box(page, f".pair .tile.{name}") for name in ("plate", "stage"))
    assert picture["width"] == pytest.approx(stage["width"], abs=2)
    assert picture["y"] == stage["y"] and picture["x"] < stage["x"]
    assert page.locator(".tile.plate img.pale").count() == 0
    page.locator(".tile.plate").hover(position={"x": 4, "y": 4})
    assert "Token 0" in page.locator(".inspector-head").inner_text()
    assert page.locator(".pair .mark:visible").count() == 2


def test_smooth_draws_the_map_without_edges_and_keeps_the_middles(page):
    open_tab(page, "Credit maps")
    page.locator('[data-mode="map"]').click()
    # the colours along a line through the middles of the first row of tokens
    row = """() => { const canvas = document.querySelector('.tile.stage canvas');
        const y = Math.floor(0.5 * canvas.height / 3);
        const data = canvas.getContext('2d').getImageData(0, y, canvas.width, 1).data;
        return Array.from({ length: canvas.width }, (_, x) => [...data.slice(4 * x, 4 * x + 3)].join()); }"""
    flat = page.evaluate(row)
    assert len(flat) == W  # one pixel per token, drawn with sharp edges
    page.get_by_label("Smooth").check()
    smooth = page.evaluate(row)
    each = len(smooth) // W
    assert len(set(smooth)) > 4 * W
    for token, colour in enumerate(flat):
        middle = token * each + each // 2
        near = [[int(part) for part in one.split(",")] for one in smooth[middle - 1 : middle + 1]]
        wanted = [int(part) for part in colour.split(",")]
        assert min(max(abs(a - b) for a, b in zip(one, wanted, strict=True)) for one in near) < 24


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


def test_a_kept_token_at_the_edge_is_framed_and_its_card_is_whole(page):
    open_tab(page, "Credit maps")
    stage = page.locator(".tile.stage")
    stage.focus()
    page.keyboard.press("ArrowRight")
    head = page.locator(".inspector-head h3")
    for keys, token in (("ArrowLeft", 0), ("ArrowUp", 0), ("ArrowDown", W), ("ArrowLeft", W)):
        page.keyboard.press(keys)
        assert head.inner_text() == f"Token {token}"
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(200)  # the frame slides
    frame, around = box(page, ".tile.stage .mark"), box(page, ".tile.stage")
    assert frame["x"] - around["x"] == pytest.approx(3, abs=0.5)  # room for its outer line
    assert frame["y"] - around["y"] == pytest.approx(3, abs=0.5)
    card = page.locator(".inspector")
    assert card.evaluate("one => one.scrollHeight <= one.clientHeight")
    last, side = box(page, '.save [data-file="archive"]'), box(page, ".inspector")
    assert last["x"] + last["width"] <= side["x"] + side["width"] - 10


def test_the_step_field_shows_the_step_that_is_shown_and_the_first_step_keeps_the_focus(page):
    open_tab(page, "Credit maps")
    field = page.locator(".step-number")
    for typed, step in (("6", 5), ("99", 9), ("-3", 1), ("", 1)):
        field.fill(typed)
        field.press("Enter")
        page.wait_for_function(
            f"document.querySelector('.step-says').innerText.startsWith('step {step} ·')"
        )
        assert field.input_value() == str(step)
    back = page.get_by_label("the recorded step before")
    back.focus()
    page.keyboard.press("Enter")
    assert back.get_attribute("aria-disabled") == "true"
    assert back.evaluate("one => one === document.activeElement")
    assert "…" not in page.locator(".step-says").inner_text()


def test_names_of_found_objects_stand_below_the_picture(page):
    open_tab(page, "Evaluation")
    assert "found: circle" in page.locator(".verdict figcaption").first.inner_text()


def test_a_second_visitor_is_told_to_wait_and_can_cancel(browser, address):
    with visited(browser, address) as first, visited(browser, address) as second:
        for page in (first, second):
            open_tab(page, "Playground")
        waiting = []  # the second one's turn, which comes when the test says so

        def catch(route):
            said = [one for one in asked(route)["data"] if isinstance(one, str)]
            form = any(one.startswith("a photo of") for one in said)  # the prompt; toys have others
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
