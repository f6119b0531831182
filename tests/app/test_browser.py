"""The page in a real browser, on toy runs, on a script that tries to run, and beside a training run that goes on. Skipped
where there is no Chromium; elsewhere it drives the one on the PATH."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from app_browser import PATIENCE, TABS, asked, box, choose_run, open_tab, visited
from app_toys import PROBE, PROMPT, SCRIPT, H, W, forget_numbers, write_toy_run
from PIL import Image

from t2i_credit.heatmap.colours import table
from t2i_credit.run_folder.reader import RunReader


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    write_toy_run(root / "other", seed=1)
    write_toy_run(root / "script", prompts=(SCRIPT, PROBE), steps=(1, 2))
    forget_numbers(write_toy_run(root / "gaps"))
    write_toy_run(root / "toy")  # the newest, so it is chosen at first
    return root


def point_at(page, row, column, *, grid=(H, W), click=True):
    """Clicks the middle of a token of the large picture."""
    stage = page.locator(".tile.stage")
    page.evaluate("document.querySelector('.tile.stage').scrollIntoView({ block: 'center' })")
    size = box(page, ".tile.stage")
    height, width = grid
    place = {
        "x": size["width"] * (column + 0.5) / width,
        "y": size["height"] * (row + 0.5) / height,
    }
    stage.click(position=place) if click else stage.hover(position=place)


def numbers(page):
    return {
        one.get_attribute("data-number"): float(one.get_attribute("data-value"))
        for one in page.locator(".inspector [data-number]").all()
    }


def test_every_tab_shows_the_run_without_a_complaint(page):
    for name in TABS:
        open_tab(page, name)
    page.get_by_role("tab", name="Training").click()
    assert "9 of 9" in page.locator(".status").inner_text()
    assert page.locator("#training-newest .card").count() == 4


def test_a_clicked_token_shows_the_numbers_of_the_arrays_file(page, runs):
    open_tab(page, "Credit maps")
    assert (
        page.locator(".maps-head select").evaluate("one => one.selectedOptions[0].text") == PROMPT
    )
    page.locator(".strip button").nth(
        1
    ).click()  # the second best: reward 2, so the third in the file
    point_at(page, 1, 3)
    arrays, token = RunReader(runs / "toy").step(9).arrays, 1 * W + 3
    shown = numbers(page)
    assert "row 1, column 3" in page.locator(".inspector-head").inner_text()
    assert shown["code"] == arrays["tokens"][2, token]
    for name in ("logprobs", "negative_logprobs", "credit", "token_advantages", "entropy"):
        assert np.float32(shown[name]) == arrays[name][2, token], name
    difference = arrays["logprobs"][2, token] - arrays["negative_logprobs"][2, token]
    assert shown["signed_contrast"] == pytest.approx(difference, abs=1e-6)
    page.keyboard.press("ArrowRight")
    assert numbers(page)["code"] == arrays["tokens"][2, token + 1]


def test_hovering_answers_and_leaving_goes_back_to_the_sample(page):
    open_tab(page, "Credit maps")
    point_at(page, 0, 0, click=False)
    assert "Token 0" in page.locator(".inspector-head").inner_text()
    page.mouse.move(5, 5)
    assert "Sample" in page.locator(".inspector-head").inner_text()


def test_numbers_that_were_not_finite_are_told_and_not_drawn_as_others(page):
    choose_run(page, "gaps")
    open_tab(page, "Credit maps")
    page.locator(".maps-head select").select_option(label=PROMPT)
    page.locator(".strip button", has_text="n/a").click()
    said = page.locator(".inspector").inner_text()
    assert "was not finite" in said and "earned" not in said
    table = page.locator(".inspector dl")
    rows = dict(
        zip(
            table.locator("dt").all_inner_texts(),
            table.locator("dd").all_inner_texts(),
            strict=True,
        )
    )
    assert rows["Reward"] == rows["Advantage"] == "n/a"
    assert rows["Group's mean reward"] == "2.000"  # of 1, 2 and 3
    point_at(page, 0, 0)
    assert page.locator('[data-number="logprobs"]').inner_text() == "n/a"
    point_at(page, 0, 1)
    assert page.locator('[data-number="token_advantages"]').inner_text() == "n/a"
    assert "The update" not in page.locator(".inspector .says").inner_text()


def test_the_step_slider_brings_another_step(page):
    open_tab(page, "Credit maps")
    assert "step 9" in page.locator(".maps-head").inner_text()
    page.locator(".step-range").fill("1")
    page.wait_for_function(
        "document.querySelector('.maps-head').innerText.includes('step 5 · 2 of 3')"
    )


def test_a_film_plays_through_the_recorded_steps(page):
    open_tab(page, "Credit maps")
    page.locator(".film-load").click()
    page.wait_for_selector(".player")
    page.wait_for_function("document.querySelector('.film-caption').innerText.includes('step 9')")
    page.locator(".film-range").fill("0")
    assert "step 1" in page.locator(".film-caption").inner_text()
    says = page.locator(".film-says").inner_text()
    assert says.startswith("Sample 0 of step 1.") and "all 3 frames" in says
    title = page.locator(".film-legend .legend-title")
    assert title.inner_text() == "Token advantages"
    page.locator('.choice button[data-map="credit"]').click()
    assert title.inner_text() == "Credit"


def test_words_are_explained_where_they_are_met(page):
    assert page.locator("#training-newest .legend-title").inner_text() == "Token advantages"
    open_tab(page, "Credit maps")
    page.locator(".tile.stage").click()
    known = page.locator(".inspector .term").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert {f"what is {word}?" for word in ("token", "code", "log p", "nats")} <= set(known)
    page.get_by_label("what is token?").click()
    assert "each square of a map" in page.locator(".term-box").inner_text()


def test_map_palette_and_outlines_change_the_picture(page):
    open_tab(page, "Credit maps")
    pixels = "document.querySelector('.tile.stage canvas').getContext('2d').getImageData(0, 0, 1, 1).data.join()"
    first = page.evaluate(pixels)
    assert first.endswith(",255")
    page.locator('.choice button[data-map="credit"]').click()
    green = page.evaluate(pixels)
    page.locator(".palette select").focus()
    page.locator(".palette select").select_option("cividis")
    assert len({first, green, page.evaluate(pixels)}) == 3
    assert page.locator(".tile.plate svg path").count() == 2
    assert page.locator(".tile.stage svg path").count() == 0  # the picture's own lines are there
    page.locator('[data-mode="map"]').click()
    assert page.locator(".tile.stage svg path").count() == 2
    page.get_by_label("Object outlines").uncheck()
    assert page.locator(".pair svg path").count() == 0


def test_downloads_can_be_opened(page, runs, tmp_path):
    open_tab(page, "Credit maps")
    for kind in ("png", "csv"):
        with page.expect_download() as download:
            page.locator(f'[data-save="{kind}"]').click()
        target = tmp_path / download.value.suggested_filename
        download.value.save_as(target)
        said = "-sample3" if kind == "png" else ""  # the best, which the page shows first
        assert target.name == f"toy-step9-a-red-circle{said}.{kind}"
    with Image.open(tmp_path / "toy-step9-a-red-circle-sample3.png") as picture:
        assert picture.width > 600
    page.locator(".palette select").select_option("glow")
    with page.expect_download() as download:
        page.locator('[data-save="png"]').click()
    with Image.open(download.value.path()) as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 24)}
    assert tuple(table("glow")[-1]) in colours and tuple(table("RdBu")[-1]) not in colours
    sheet = tmp_path / "toy-step9-a-red-circle.csv"
    rows = list(csv.DictReader(sheet.read_text().splitlines()))
    arrays = RunReader(runs / "toy").step(9).arrays
    for row in rows[:: W + 1]:
        place = int(row["sample"]), int(row["token"])
        assert np.float32(row["credit"]) == arrays["credit"][place]


def test_another_run_is_shown_and_stays_chosen_while_the_page_lives(page):
    page.locator("#run input").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_timeout(5000)  # two looks of the clock
    assert page.locator("#run input").input_value().startswith("other")


def test_an_answer_that_comes_late_takes_no_choice_back(browser, address):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    held = []

    def opens(route):
        """The page itself; of the tab that is open at first it tells as well, before or after."""
        return asked(route)["data"] == [{}] and asked(route).get("event_data") is None

    def catch(route):  # what is asked while no run is chosen yet waits, looks of the clock too
        held.append(route) if asked(route)["data"][:1] in ([], [None], [{}]) else route.continue_()

    page.route("**/queue/join*", catch)
    page.goto(address)
    deadline = time.time() + PATIENCE / 1000
    while time.time() < deadline and not (len(held) >= 3 and any(map(opens, held))):
        page.wait_for_timeout(200)
    (first,) = filter(opens, held)
    late = [route for route in held if route is not first]
    assert len(late) >= 2
    first.continue_()
    page.wait_for_selector(".status")
    choose_run(page, "other")
    page.wait_for_timeout(1000)
    for route in late:
        route.continue_()
    page.wait_for_timeout(5000)
    assert page.locator("#run input").input_value().startswith("other")
    page.close()


def test_the_maps_as_they_were_left_come_late_and_take_no_chosen_step_back(page, runs):
    open_tab(page, "Credit maps")
    open_tab(page, "Training")
    held = []

    def catch(route):  # what opening the tab asks of the maps
        kept = [one for one in asked(route)["data"] if isinstance(one, dict) and "turn" in one]
        held.append(route) if kept else route.continue_()

    page.route("**/queue/join*", catch)
    open_tab(page, "Credit maps")
    head = page.locator(".maps-head")
    steps = RunReader(runs / "toy").steps()
    page.locator(".step-range").fill("0")
    first = f"step {steps[0]} · 1 of {len(steps)} recorded"
    page.wait_for_function(
        "first => document.querySelector('.maps-head').innerText.includes(first)", arg=first
    )
    (late,) = held
    with page.expect_response("**/queue/join*"):
        late.continue_()
    page.wait_for_timeout(3000)
    assert first in head.inner_text()
    page.unroute("**/queue/join*")


def test_a_prompt_that_is_a_script_is_shown_as_text(page):
    page.locator("#run input").click()
    page.get_by_role("option", name="script").click()
    open_tab(page, "Credit maps")
    assert (
        page.locator(".maps-head select").evaluate("one => one.selectedOptions[0].text") == SCRIPT
    )
    for name in ("Training", "Compare", "Evaluation"):
        open_tab(page, name)
    assert page.evaluate("window.hacked") is None


def test_dark_mode_and_a_phones_width_keep_everything_in_view(page):
    page.locator(".theme").click()
    page.wait_for_function(
        "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)) < 64"
    )
    page.set_viewport_size({"width": 390, "height": 844})
    for name in TABS:
        open_tab(page, name)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, name


def test_a_playground_sample_shows_where_the_prompts_disagree(page):
    open_tab(page, "Playground")
    page.locator("#play-negative textarea").fill("a photo of a blue circle")
    page.locator("#play-go").click()
    page.wait_for_selector("#play-said [data-done]")
    assert page.locator("#play-pictures .card").count() == 4
    assert page.locator("#play-pictures .tile.heat canvas").first.is_visible()
    for width in (1920, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        card = box(page, ".fresh .inspector")
        ends = "all => all.map(one => one.getBoundingClientRect().right)"
        assert max(page.locator(".fresh .tile").evaluate_all(ends)) < card["x"]
        assert card["x"] + card["width"] <= width
    page.locator("#play-prompt textarea").fill("red " * 400)
    page.locator("#play-go").click()
    page.wait_for_selector("#play-said .error")
    assert "takes at most" in page.locator("#play-said").inner_text()
    seed = page.get_by_label("Seed", exact=True).locator("visible=true")
    seed.fill("-1")
    page.locator("#play-go").click()
    page.wait_for_function(
        "document.querySelector('#play-said').innerText.includes('an integer from 0 on is')"
    )


def test_a_training_run_is_followed_while_it_goes_on(browser, address, runs):
    small = ["prompts.per_step=2", "rollout.group_size=4", "optim.warmup_steps=0"]
    names = [f"train.out={runs}", "train.name=live", "train.steps=2000", "log.samples_every=1"]
    command = [sys.executable, "-m", "t2i_credit.cli", "train", "shapes/gcpo", *small, *names]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.time() + PATIENCE / 1000
        while not (runs / "live" / "steps" / "000001").is_dir():
            assert training.poll() is None and time.time() < deadline
            time.sleep(0.5)
        with visited(browser, address) as page:  # a running run is chosen first
            page.wait_for_selector(".state.running")
            page.wait_for_selector("#training-newest .card")
            said = page.locator("#training-newest .group-head").inner_text()
            page.wait_for_function(
                "said => document.querySelector('#training-newest .group-head').innerText !== said",
                arg=said,
            )
            for name in TABS:
                open_tab(page, name, "#evaluation-bars .empty" if name == "Evaluation" else None)
            open_tab(page, "Credit maps")
            page.locator(".step-range").fill("0")  # the newest one is followed, and drawn anew
            page.wait_for_function(
                "/step \\d+ · 1 of /.test(document.querySelector('.maps-head').innerText)"
            )
            point_at(page, 2, 3, grid=(6, 6))
            shown = numbers(page)
            step = int(re.search(r"step (\d+)", page.locator(".maps-head").inner_text())[1])
            arrays, token = RunReader(runs / "live").step(step).arrays, 2 * 6 + 3
            names = ("logprobs", "negative_logprobs", "credit", "token_advantages", "entropy")
            assert shown["code"] in arrays["tokens"][:, token]
            assert any(
                all(np.float32(shown[name]) == arrays[name][k, token] for name in names)
                for k in range(len(arrays["tokens"]))
            )
            assert training.poll() is None  # all of this beside the training
            training.terminate()
            open_tab(page, "Training")
            page.wait_for_function("!document.querySelector('.state.running')")
    finally:
        training.terminate()
        training.wait()
        shutil.rmtree(runs / "live", ignore_errors=True)  # the newest run would be shown first


def test_scrubbing_keeps_drag_focus_and_prompt(page):
    open_tab(page, "Credit maps")
    head = page.locator(".maps-head")
    page.evaluate("window.held = document.querySelector('.step-range')")
    page.locator(".step-range").focus()
    for step, keys in ((5, "ArrowLeft"), (1, "ArrowLeft"), (5, "ArrowRight")):
        page.keyboard.press(keys)
        page.wait_for_function(
            f"document.querySelector('.step-says').innerText.startsWith('step {step} ·')"
        )
        assert page.evaluate("document.activeElement === window.held && window.held.isConnected")
    page.locator(".step-number").fill("9")
    page.locator(".step-number").press("Enter")
    page.wait_for_function("document.querySelector('.step-says').innerText.startsWith('step 9 ·')")
    assert "step-number" in page.evaluate("document.activeElement.className")
    assert head.locator("select").evaluate("one => one.selectedOptions[0].text") == PROMPT
    head.get_by_label("the recorded step before").click()
    page.wait_for_function("document.querySelector('.step-says').innerText.startsWith('step 5 ·')")
    head.get_by_label("play through the recorded steps").click()
    page.wait_for_function("document.querySelector('.step-says').innerText.startsWith('step 9 ·')")
    assert head.get_by_label("play through the recorded steps").inner_text() == "▶"  # at its end
