"""An address for everything, in a real browser: reload, Back and another visitor show the same; a file that holds the maps; words
that explain themselves."""

from __future__ import annotations

import pytest
from app_browser import PATIENCE, open_tab, visited
from app_toys import PROBE, SCRIPT, W, write_large_run, write_toy_run

from t2i_credit.app.single_file import write_page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("address") / "runs"
    write_toy_run(root / "other", seed=1)
    write_toy_run(root / "toy")  # the newest, so it is chosen at first
    return root


def shown(page):
    """What the maps show, read from the page and not from its address."""
    page.wait_for_selector(".tile.stage canvas")
    return page.evaluate("""() => ({
        run: document.querySelector('#run input').value.split(' ')[0],
        step: document.querySelector('.step-says').innerText.split(' ')[1],
        prompt: document.querySelector('.maps-head select').selectedOptions[0].text.split(' (probe')[0],
        sample: document.querySelector('.strip [aria-pressed="true"]').dataset.place,
        map: document.querySelector('.choice [aria-pressed="true"]').dataset.map,
        token: document.querySelector('.inspector-head h3').innerText,
    })""")


def test_reload_and_another_visitor_show_the_same(browser, address):
    with visited(browser, address) as page:
        page.locator("#run input").click()
        page.get_by_role("option", name="other").click()
        page.wait_for_function("location.hash.includes('run=other')")
        open_tab(page, "Credit maps")
        page.wait_for_function(
            "document.querySelector('.step-says').innerText.startsWith('step 9 ·')"
        )
        page.locator(".maps-head select").select_option(
            label=f"{PROBE}  (probe: same noise at every step)"
        )
        page.wait_for_function(
            "wanted => document.querySelector('.maps-head select').selectedOptions[0].text.startsWith(wanted)",
            arg=PROBE,
        )
        page.locator(".step-number").fill("5")
        page.locator(".step-number").press("Enter")
        page.wait_for_function(
            "document.querySelector('.step-says').innerText.startsWith('step 5 ·')"
        )
        page.locator('.choice button[data-map="credit"]').click()
        page.locator(".strip button").nth(2).click()
        page.locator(".tile.stage").focus()
        page.keyboard.press("ArrowDown")  # to the first token, and on
        page.keyboard.press("ArrowDown")
        here, link = shown(page), page.url
        assert here["step"] == "5" and here["prompt"] == PROBE and here["map"] == "credit"
        assert here["token"] == f"Token {W}"
        page.reload()
        assert shown(page) == here
    with visited(browser, link) as page:
        assert shown(page) == here


def test_a_link_to_a_step_or_token_that_is_not_there_says_so_and_the_address_follows(
    browser, address
):
    link = f"{address}#run=toy&tab=maps&step=4&token=999"
    with visited(browser, link) as page:
        assert shown(page)["step"] == "5"
        told = page.locator(".maps-head .away").inner_text()
        assert "Step 4 was not recorded; step 5 is shown." in told and "no token 999" in told
        page.wait_for_function("/step=5/.test(location.hash) && !/&token=/.test(location.hash)")
        page.get_by_role("button", name="the next recorded step").click()
        page.wait_for_function("document.querySelector('.maps-head .away').innerText === ''")
    with visited(browser, f"{address}#tab=maps&step=5") as page:
        assert shown(page)["step"] == "5"
        assert page.locator(".maps-head .away").inner_text() == ""
    with visited(browser, f"{address}#run=toy&tab=maps&step=77") as page:
        assert shown(page)["step"] == "9"
        assert "step 9 is shown" in page.locator(".maps-head .away").inner_text()
        page.wait_for_function("!location.hash.includes('77')")


def test_back_returns_to_the_tab_and_the_run_before(page):
    open_tab(page, "Credit maps")
    page.locator("#run input").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_function("location.hash.includes('run=other')")
    page.go_back()
    page.wait_for_function("document.querySelector('#run input').value.startsWith('toy')")
    assert page.get_by_role("tab", name="Credit maps").get_attribute("aria-selected") == "true"
    page.go_back()
    page.wait_for_function(
        "document.querySelector('[role=tab][aria-selected=true]').innerText.trim() === 'Training'"
    )


def test_forms_stand_in_the_address(browser, address):
    with visited(browser, address) as page:
        open_tab(page, "Playground")
        page.locator("#play-prompt textarea").fill("a red circle, 2%")
        page.locator("#play-mode").get_by_text("two negative prompts").click()
        page.locator("#play-negative-2 textarea").fill("a blue one")
        page.wait_for_function("location.hash.includes('negative2=')")
        open_tab(page, "Compare")
        page.wait_for_selector("#compare-pictures .card")
        page.locator("#compare-axis input").click()
        page.get_by_role("option", name="images").click()
        page.wait_for_function("location.hash.includes('along=images')")
        link = page.url
    with visited(browser, link) as page:  # its tab is Compare
        page.wait_for_selector("#compare-pictures .card")
        assert page.locator("#compare-axis input").input_value() == "images"
        open_tab(page, "Playground")
        page.wait_for_selector("#play-negative-2 textarea")
        assert page.locator("#play-prompt textarea").input_value() == "a red circle, 2%"
        assert page.locator("#play-negative-2 textarea").input_value() == "a blue one"
        assert page.get_by_label("two negative prompts").is_checked()


def test_a_step_and_a_run_are_downloaded_whole(page, tmp_path):
    open_tab(page, "Credit maps")
    page.wait_for_selector(".tile.stage canvas")
    for kind, name in (("page", "toy-step9.html"), ("archive", "toy.zip")):
        with page.expect_download() as download:
            page.locator(f'.save [data-file="{kind}"]').click()
        assert download.value.suggested_filename == name


HOSTILE = [
    "run=../../etc",
    "run=toy&tab=maps&step=99999999999999999999&sample=-1&token=1e9&map=__proto__&palette=constructor",
    "tab=%3Cscript%3Ealert(1)%3C/script%3E",
    "run=toy&tab=maps&prompt=%3Cimg%20src=x%20onerror=alert(1)%3E",
    "&&&===%%%",
    "run=" + "a" * 20_000,
]


@pytest.mark.parametrize("hash", HOSTILE)
def test_a_hostile_address_shows_what_is_there(browser, address, hash):
    with visited(browser, f"{address}#{hash}") as page:
        page.on("dialog", lambda dialog: pytest.fail("a script ran"))
        open_tab(page, "Credit maps")
        assert shown(page)["run"] in ("toy", "other")


def test_a_word_explains_itself_and_gives_the_focus_back(page):
    open_tab(page, "Credit maps")
    what = page.get_by_label("what is credit?").first
    what.click()
    box = page.locator(".term-box")
    assert "1 is the average token" in box.inner_text()
    page.keyboard.press("Escape")
    box.wait_for(state="detached")
    assert page.evaluate("document.activeElement.ariaLabel") == "what is credit?"


def test_one_file_shows_every_step_without_a_server(browser, tmp_path):
    run = write_toy_run(tmp_path / "run", prompts=(SCRIPT, PROBE))
    file = write_page(run, None, tmp_path / "one file.html")
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a script ran"))
    page.goto(file.as_uri())
    page.wait_for_selector(".tile.stage canvas")
    assert page.locator(".step-says").inner_text() == "step 9 · 3 of 3 recorded"
    page.get_by_label("the recorded step before").click()
    page.wait_for_function("document.querySelector('.step-says').innerText.startsWith('step 5 ·')")
    page.locator(".tile.stage").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator('.inspector [data-number="credit"]').is_visible()
    assert not [one for one in asked if not one.startswith(("file:", "data:", "blob:"))]
    assert not complaints, complaints
    context.close()


def test_one_file_of_large_pictures_is_small(tmp_path):
    run = write_large_run(tmp_path / "large", steps=(1,))
    size = write_page(run, 1, tmp_path / "one.html").stat().st_size
    assert size * 12 / 16 < 5_000_000  # 12 samples of 24 x 24, with grain
