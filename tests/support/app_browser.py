"""A real browser for the tests of the app's page: the Chromium on the PATH, and a page that may not complain. Holds no test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE = 90_000  # ms: a machine that trains beside it is slow
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TABS = {
    "Training": "#training-curves .chart .plot svg",
    "Credit maps": ".tile.stage",
    "Playground": "#play-go",
    "Compare": "#compare-pictures .card",
    "Evaluation": ".verdict",
}


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"no Chromium on the PATH ({', '.join(CHROMIUMS)})")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def visited(browser: Any, address: str) -> Iterator[Any]:
    """The app's page; fails the test if the browser complained."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if _is_complaint(m) else None)
    page.on("pageerror", lambda e: None if _broken_off(str(e)) else complaints.append(str(e)))
    page.on("response", lambda r: complaints.append(r.url) if r.status >= 400 else None)
    page.goto(address)
    page.wait_for_function("window.t2i?.address?.ready")
    yield page
    context.close()
    assert not complaints, complaints


def _is_complaint(message: Any) -> bool:
    """Whether the console says that something is wrong."""
    return message.type == "error" and not _broken_off(message.text)


def _broken_off(says: str) -> bool:
    """Whether a page that is loaded again says that it stops listening."""
    own = ("BodyStreamBuffer was aborted", "Connection errored out", "AbortError")
    return any(one in says for one in own)


def asked(route: Any) -> Any:
    """What a request of the page to the app's queue says."""
    return json.loads(route.request.post_data)


def open_tab(page: Any, name: str, shown: str | None = None) -> None:
    """Opens a tab and waits until what it shows is there."""
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(shown or TABS[name])


def box(page: Any, css: str) -> dict[str, float]:
    """Where the first such element lies (x, y, width, height in CSS pixels), once it has a size. An answer that draws the tab again
    takes elements away, so finding one and measuring it are one step in the page."""
    measured = """css => { const one = document.querySelector(css)?.getBoundingClientRect();
        return one && one.width > 0 && one.toJSON(); }"""
    return page.wait_for_function(measured, arg=css).json_value()


def choose_run(page: Any, name: str) -> None:
    """Another run in the list at the top."""
    page.locator("#run input").click()
    page.get_by_role("option", name=name).click()
