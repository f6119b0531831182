"""Takes the pictures of docs/images/app-*.png from real runs: `python tests/support/screenshots_app.py RUNS [STEP]`, run by hand.

RUNS: a folder whose newest run has recorded steps and an evaluation, or is on text. STEP: which one the credit maps
show; the newest when left out.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from app_browser import CHROMIUMS, TABS
from app_toys import served
from PIL import Image
from playwright.sync_api import sync_playwright
from repository import ROOT

from t2i_credit.run_folder.reader import RunReader, list_runs

OUT = ROOT / "docs" / "images"
WIDTH, MOST_BYTES = 1280, 300_000


def main(runs: Path, wanted: str | None) -> None:
    """All tabs in the light, and the credit maps in the dark and on a phone."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)))
    run = RunReader(list_runs(runs)[0].path)
    step = int(wanted) if wanted else run.steps()[-1]
    with served(runs) as facts, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(240_000)
        page.goto(facts["address"])
        page.wait_for_selector("#training-newest :is(.card, .answer)")
        if page.locator("#training-newest .answer").count():
            picture_of_text(page, run, step)
            return
        for name, prepare, height in (
            ("Training", settle, 1240),
            ("Credit maps", lambda page: point_at_a_token(page, run, step), 1240),
            ("Playground", draw, 1240),
            ("Compare", settle, 2080),
            ("Evaluation", settle, 1560),
        ):
            page.get_by_role("tab", name=name).click()
            page.wait_for_selector(TABS[name])
            prepare(page)
            save(page, f"app-{'maps' if name == 'Credit maps' else name.lower()}", height)
        page.get_by_role("tab", name="Credit maps").click()  # step and token are still chosen
        page.locator(".theme").click()
        save(page, "app-maps-dark", 1240)
        page.set_viewport_size({"width": 390, "height": 844})
        save(page, "app-maps-phone", 1500)
        browser.close()


def settle(page: Any) -> None:
    """Waits for the curves."""
    page.wait_for_timeout(4000)


def picture_of_text(page: Any, run: RunReader, step: int) -> None:
    """The credit maps of a run on text; the token with most credit is kept."""
    page.get_by_role("tab", name="Credit maps").click()
    page.wait_for_selector(".answer-stage .pill")
    go_to(page, run, step)
    place = page.locator('button.answer[aria-pressed="true"]').get_attribute("data-place")
    credit = run.samples(step)[int(place)]["credit"]
    page.locator(".answer-stage .pill").nth(credit.index(max(credit))).click()
    save(page, "app-text", 1240)


def point_at_a_token(page: Any, run: RunReader, step: int) -> None:
    """A step, and a token that is kept."""
    go_to(page, run, step)
    stage = page.locator(".tile.stage")
    box = stage.bounding_box()
    stage.click(position={"x": 0.42 * box["width"], "y": 0.42 * box["height"]})


def go_to(page: Any, run: RunReader, step: int) -> None:
    """Moves the slider, which counts recorded steps, to a step."""
    page.locator(".step-range").fill(str(run.steps().index(step)))
    page.wait_for_function(
        f"document.querySelector('.maps-head').innerText.includes('step {step} ·')"
    )
    page.wait_for_timeout(1500)


def draw(page: Any) -> None:
    """Samples under two prompts that differ in what belongs to what."""
    page.locator("#play-negative textarea").fill("a photo of a blue circle and a red square")
    page.locator("#play-go").click()
    page.wait_for_selector("#play-said [data-done]")


def save(page: Any, name: str, height: int) -> None:
    """The upper part of the page; in 256 colours if it would be too large."""
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    path = OUT / f"{name}.png"
    whole = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"]
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, whole)}
    page.screenshot(path=path, full_page=True, clip=clip)
    if path.stat().st_size > MOST_BYTES:
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(256).save(path, optimize=True)
    print(path, path.stat().st_size, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
