"""Charts and lists of the page in a real browser: the keyboard, numbers as a table, the box under the pointer, ticks, order,
and the list of a hundred runs. Skipped where there is no Chromium."""

from __future__ import annotations

import pytest
from app_browser import choose_run
from app_toys import start_toy_run, write_text_run, write_toy_run

CHARTS = "#training-curves .chart"
TITLES = f"[...document.querySelectorAll('{CHARTS} h2')].map(one => one.textContent)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("charts") / "runs"
    for number in range(99):
        start_toy_run(root / f"old-{number:02d}", steps=1).finish("finished")
    short = start_toy_run(root / "short", steps=3)
    short.finish("finished")
    write_text_run(root / "text")
    write_toy_run(root / "toy")  # the newest, so it is chosen at first
    return root


@pytest.fixture
def drawn(page):
    page.wait_for_selector(f"{CHARTS} .plot svg")
    return page


def test_the_oldest_of_a_hundred_runs_is_in_the_list(drawn):
    drawn.locator("#run input").click()
    drawn.get_by_role("option", name="old-00").click()
    drawn.wait_for_function("/1 of 1/.test(document.querySelector('.status').innerText)")


def test_what_is_typed_in_the_list_replaces_the_run_that_is_chosen(drawn):
    field = drawn.locator("#run input")
    assert field.input_value().startswith("toy")
    field.click()
    drawn.keyboard.type("old-4")
    assert field.input_value() == "old-4"
    options = "wanted => document.querySelectorAll('[role=option]').length === wanted"
    drawn.wait_for_function(options, arg=10)  # old-40 to old-49
    field.click()  # in the middle of typing: nothing is lost
    drawn.keyboard.type("7")
    drawn.wait_for_function(options, arg=1)


def test_a_press_on_a_chart_closes_an_open_list(drawn):
    drawn.locator("#run input").click()
    drawn.wait_for_selector("[role=option]")
    drawn.locator(f"{CHARTS} .plot").first.click(position={"x": 60, "y": 200})
    drawn.wait_for_selector("[role=option]", state="detached")


def test_a_chart_answers_to_the_keyboard_and_its_box_hides_what_is_behind_it(drawn):
    plot = drawn.locator(f"{CHARTS} .plot").first
    plot.focus()
    drawn.keyboard.press("Home")
    drawn.wait_for_selector(".hoverlayer .legend .bg")
    fill = (
        "one => getComputedStyle(one).fillOpacity * (one.style.fill === 'rgba(0, 0, 0, 0)' ? 0 : 1)"
    )
    assert drawn.locator(".hoverlayer .legend .bg").evaluate(fill) == 1
    said = drawn.locator(".hoverlayer .legend").text_content()
    assert "reward, this step" in said and "reward, smoothed" in said  # no two lines of one name
    first = said
    drawn.keyboard.press("ArrowRight")
    drawn.wait_for_function(
        "said => document.querySelector('.hoverlayer .legend')?.textContent !== said", arg=first
    )
    drawn.keyboard.press("Escape")
    drawn.wait_for_selector(".hoverlayer .legend", state="detached")
    told = plot.get_attribute("aria-label")
    assert told.startswith("Reward: ") and "0.1111 at 1" in told and "1 at 9" in told  # step / 9


def test_the_numbers_of_a_chart_open_as_a_table(drawn):
    chart = drawn.locator(CHARTS).first
    summary = chart.locator("summary")
    summary.focus()
    drawn.keyboard.press("Enter")
    rows = chart.locator(".numbers tbody tr")
    rows.nth(8).wait_for()
    assert rows.count() == 9
    heads = chart.locator(".numbers thead th").all_inner_texts()
    assert heads[0] == "step" and "reward, this step" in heads
    third = rows.nth(2).locator("th, td").all_inner_texts()
    assert third[0] == "3" and third[heads.index("reward, this step")] == "0.3333"  # 3 / 9


def test_axes_are_named_and_no_tick_stands_between_two_steps(drawn):
    choose_run(drawn, "short")
    drawn.wait_for_function("/3 of 3/.test(document.querySelector('.status').innerText)")
    ticks = f"[...document.querySelector('{CHARTS}').querySelectorAll('.xtick')].map(one => one.textContent)"
    drawn.wait_for_function(f"{ticks}.length === 3")
    assert drawn.evaluate(ticks) == ["1", "2", "3"]
    first = drawn.locator(CHARTS).first
    assert first.locator(".xtitle").text_content() == "step"
    assert first.locator(".ytitle").text_content() == "reward"


def test_charts_stand_in_the_same_order_whichever_run_was_seen_before(drawn):
    choose_run(drawn, "text")
    drawn.wait_for_function(f"{TITLES}.includes('Answer length')")
    after = drawn.evaluate(TITLES)
    assert after == ["Reward", "Answer length", "Cut-off answers", "Entropy", "Signed contrast"]


def test_headings_go_down_one_level_at_a_time(drawn):
    drawn.wait_for_selector("#training-newest h2")
    levels = drawn.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].filter(one => one.offsetParent).map(one => +one.tagName[1])"
    )
    assert levels[0] == 1 and set(levels[1:]) == {2}


def test_an_unfilled_track_is_dark_in_the_dark(drawn):
    drawn.locator(".theme").click()
    drawn.get_by_role("tab", name="Playground").click()
    slider = drawn.locator("#play-form input[type=range]").first
    slider.wait_for()
    colours = slider.evaluate(
        "one => ['--neutral-200', '--t2i-hairline'].map(name => getComputedStyle(one).getPropertyValue(name))"
    )
    assert colours[0] == colours[1] != ""


def test_axes_follow_a_run_that_had_one_step(drawn, runs):
    run = start_toy_run(runs / "young", steps=1)
    choose_run(drawn, "young")
    drawn.wait_for_function("/1 of 1/.test(document.querySelector('.status').innerText)")
    for step in (2, 3, 4):
        run.append_metrics(step, {"reward": 0.2 * step, "entropy": 4.0 - step / 10})
    axis = """() => { const chart = [...document.querySelectorAll('#training-curves .chart')].find((one) =>
        one.querySelector('h2').textContent.startsWith('Entropy'));
        const [low, high] = chart.querySelector('.plot').layout.yaxis.range; return low > 3 && high < 5; }"""
    drawn.wait_for_function(axis)
