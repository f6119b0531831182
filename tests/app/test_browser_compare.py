"""Compare, Evaluation and the maps beside runs that go on, in a real browser: what is followed, the wipe, the enlarged picture,
the report. Skipped where there is no Chromium."""

from __future__ import annotations

import pytest
from app_browser import choose_run, open_tab
from app_toys import PROBE, start_toy_run, write_paired_evaluation, write_toy_run, write_toy_step

from t2i_credit.run_folder.writer import RunWriter

STEP = "document.querySelector('.versus-step output').textContent"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare") / "my runs"
    path = write_toy_run(root / "grpo", steps=(1, 9), evaluation=False)
    config = (path / "config.yaml").read_text().replace("guidance_contrast", "uniform")
    (path / "config.yaml").write_text(config)
    write_toy_step(RunWriter(path), 9, (PROBE, "a green square"))  # other pictures than those below
    write_paired_evaluation(path)
    live = start_toy_run(root / "live")  # the newest, and it says that it is running
    for step in (1, 9):
        write_toy_step(live, step)
    return root


def test_compare_follows_a_run_and_keeps_what_is_chosen(page, runs):
    open_tab(page, "Compare")
    page.wait_for_selector("#compare-curves .plot svg")
    last = "document.querySelector('#compare-curves .plot').data.at(-1).x.at(-1)"
    names = "[...document.querySelectorAll('#compare-pictures .t2i-group h2')].map(one => one.textContent)"
    assert page.evaluate(last) == 9 and page.evaluate(names) == ["live", "grpo"]
    page.wait_for_timeout(4500)
    marked = "document.querySelector('.wipe').dataset.mine = 'same'"
    page.evaluate(marked)
    both = [RunWriter(runs / name) for name in ("live", "grpo")]
    for run in both:
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 10, "reward": 0.9}\n')
    page.wait_for_function(f"{last} === 10")
    for run in both:
        write_toy_step(run, 10)
    page.wait_for_function(f"{STEP}.startsWith('step 10 · 3 of 3')")  # the newest was shown
    assert page.locator(".wipe").get_attribute("data-mine") == "same"  # what has the focus stays
    page.locator(".versus-step input").focus()
    page.keyboard.press("Home")
    rows = "document.querySelector('#compare-pictures .t2i-group').innerText"
    page.wait_for_function(f"{rows}.includes('step 1,')")
    assert page.evaluate("document.activeElement.matches('.versus-step input')")
    for run in both:
        write_toy_step(run, 11)
    page.wait_for_function(f"{STEP}.startsWith('step 1 · 1 of 4')")  # the range grows


def test_a_wipe_goes_by_keyboard_and_a_difference_is_told_in_words(page):
    open_tab(page, "Compare")
    wipe = page.locator(".wipe-stage + input")
    wipe.focus()
    page.keyboard.press("Home")
    clip = "getComputedStyle(document.querySelectorAll('.wipe-stage .tile')[1]).clipPath"
    assert page.evaluate(clip) == "inset(0px 100% 0px 0px)"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(clip) == "inset(0px 99% 0px 0px)"
    assert wipe.get_attribute("aria-valuetext") == "1% of the first, 99% of the second"
    page.locator(".versus-step input").fill("1")
    page.wait_for_function(f"{STEP}.startsWith('step 9')")
    said = page.locator(".wipe-difference")
    page.wait_for_function("!document.querySelector('.wipe-difference .tile').hidden")
    assert "compares places of the grid, not objects" in said.inner_text()
    assert said.locator(".legend").is_visible()
    page.locator(".wipe-choices select").nth(1).select_option("0")  # a run over itself
    assert "The credit is the same everywhere." in said.inner_text()
    assert "15 of 15 tokens" in said.inner_text()
    alt = page.locator(".wipe-stage img").first.get_attribute("alt")
    assert alt.startswith(PROBE) and "reward" in alt and "most credit" in alt


def test_curve_smoothing_and_axis_are_choices(page):
    open_tab(page, "Compare")
    page.wait_for_selector("#compare-curves .plot svg")
    title = "document.querySelector('#compare-curves .xtitle').textContent"
    assert page.evaluate(title) == "step"
    page.locator("#compare-axis input").click()
    page.get_by_role("option", name="time").click()
    page.wait_for_function(f"{title} === 'seconds'")
    page.locator("#compare-metric input").click()
    page.get_by_role("option", name="time/tokens_per_second").click()
    page.wait_for_function(
        "document.querySelector('#compare-curves h2').textContent.startsWith('Time: tokens')"
    )
    assert "credit.name" in page.locator("#compare-differences").inner_text()
    under = """[...document.querySelectorAll('#compare-curves .chart')].map((chart) =>
        chart.querySelector('details').getBoundingClientRect().top
        - chart.querySelector('.main-svg').getBoundingClientRect().bottom)"""
    found = page.evaluate(under)
    assert len(found) > 1 and min(found) > -1  # the numbers stand below their chart, and not on it


def test_maps_follow_a_run_where_the_newest_step_is_shown(page, runs):
    choose_run(page, "live")
    open_tab(page, "Credit maps")
    steps = len(list((runs / "live" / "steps").iterdir()))
    head = "document.querySelector('.maps-head').innerText"
    page.wait_for_function(f"{head}.includes('{steps} of {steps}')")
    write_toy_step(RunWriter(runs / "live"), 20)
    page.wait_for_function(f"{head}.includes('step 20 · {steps + 1} of {steps + 1}')")
    page.locator(".step-range").fill("0")
    page.wait_for_function(f"{head}.includes('step 1 · 1 of')")
    page.locator(".step-range").evaluate("one => one.blur()")
    write_toy_step(RunWriter(runs / "live"), 21)
    page.wait_for_function(f"{head}.includes('step 1 · 1 of {steps + 2}')")


def test_a_picture_is_enlarged_and_escape_gives_the_focus_back(page):
    choose_run(page, "grpo")
    open_tab(page, "Evaluation")
    page.wait_for_selector(".prompt-card .was img")
    picture = page.locator(".enlarge").nth(1)
    assert picture.get_attribute("aria-label").startswith("enlarge: a red circle 1, wrong")
    picture.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog.large")
    assert large.is_visible() and large.locator("figure").count() == 2
    sides = [" ".join(one.split()) for one in large.locator("figcaption").all_inner_texts()]
    assert sides[0].startswith("After: ✗ wrong, lost") and sides[1].startswith("Before: ✓ right")
    page.keyboard.press("ArrowRight")
    assert large.locator("h2").inner_text() == "a red circle 0"
    page.keyboard.press("Escape")
    assert not large.is_visible()
    focused = "[...document.querySelectorAll('.enlarge')].indexOf(document.activeElement)"
    assert page.evaluate(focused) == 2


def test_filters_count_and_keep_the_focus_and_the_report_opens_apart(page, runs):
    choose_run(page, "grpo")
    open_tab(page, "Evaluation")
    chip = page.locator('[data-pick="verdict: lost"]')
    assert chip.inner_text().split() == ["lost", "1"]
    chip.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.enlarge').length === 1")
    assert page.evaluate("document.activeElement.dataset.pick") == "verdict: lost"
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open the report").click()
    report = opened.value
    report.wait_for_load_state()
    assert report.title() == "all of it and its script"
    assert report.evaluate("self.origin") == "null"  # it reaches nothing of the app
    write_paired_evaluation(runs / "grpo", "newer-cfg2")
    page.locator("#evaluation-name input").click()
    page.get_by_role("option", name="newer-cfg2").click()  # it came while the tab was open
    page.wait_for_function("document.querySelectorAll('.enlarge').length === 6")
