"""How fast the app is, and whether its memory stays: run by hand, `python tests/support/measure_app.py [MINUTES]`. Prints one table.

A run of 1,000 steps, each recorded with 16 samples, is written and then continued by a step every two seconds while a
browser watches it. Needs a Chromium on the PATH and playwright.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from app_browser import CHROMIUMS, TABS
from app_toys import start_toy_run, write_toy_evaluation, write_toy_step
from playwright.sync_api import sync_playwright

from t2i_credit.run_folder.writer import RunWriter

STEPS = 1000
PROMPTS = ("a red circle", "a blue square", "a green ring", "two rings")  # four samples each


def main(minutes: float) -> None:
    """Writes the run, serves it, opens every tab, watches."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)))
    with tempfile.TemporaryDirectory() as folder:
        run = start_toy_run(Path(folder) / "runs" / "long", steps=STEPS)
        for step in range(1, STEPS + 1):
            write_toy_step(run, step, PROMPTS)
        write_toy_evaluation(run)
        command = [
            sys.executable,
            "-m",
            "t2i_credit.cli",
            "app",
            folder + "/runs",
            "--port",
            "7899",
        ]
        server = subprocess.Popen(command)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
                page = browser.new_page()
                page.set_default_timeout(120_000)
                wait_until_served(page)
                for name, seconds in times(page).items():
                    print(f"{name:28} {seconds:6.2f} s", flush=True)
                watch(page, server.pid, run, minutes)
                print(f"{'to Playground':28} {switch(page, 'Playground'):6.2f} s", flush=True)
                print(f"{'first sample':28} {first_sample(page):6.2f} s", flush=True)
                browser.close()
        finally:
            server.terminate()
            server.wait()


def wait_until_served(page) -> None:
    """Returns when the server answers; a first visit also fills the browser's cache of scripts."""
    for _ in range(240):
        try:
            page.goto("http://127.0.0.1:7899/")
            return page.wait_for_selector(".status")
        except Exception:
            time.sleep(1)
    raise SystemExit("the app did not start")


def times(page) -> dict[str, float]:
    """Seconds to the first paint, the first numbers, and every tab."""
    began = time.perf_counter()
    page.reload()
    page.wait_for_selector(".t2i-header h1")
    found = {"first paint": time.perf_counter() - began}
    page.wait_for_selector(".status")
    found["status of the run"] = time.perf_counter() - began
    page.wait_for_selector(TABS["Training"])
    found["curves"] = time.perf_counter() - began
    for name in 2 * ("Credit maps", "Compare", "Evaluation", "Training"):
        found[f"to {name}"] = switch(page, name)
    return found


def switch(page, name: str) -> float:
    """Seconds until a tab shows what it has."""
    began = time.perf_counter()
    page.get_by_role("tab", name=name).click()
    page.locator(TABS[name]).first.wait_for(state="visible")
    return time.perf_counter() - began


def first_sample(page) -> float:
    """Seconds until four images with their credit are there; the generator is loaded since the server has started."""
    began = time.perf_counter()
    page.locator("#play-go").click()
    page.wait_for_selector("#play-said [data-done]")
    return time.perf_counter() - began


def watch(page, pid: int, run: RunWriter, minutes: float) -> None:
    """A new step every two seconds; prints the memory of server and page once a minute."""
    server, began, step = psutil.Process(pid), time.time(), STEPS
    while (passed := time.time() - began) < 60 * minutes:
        step += 1
        run.append_metrics(step, {"reward": step % 10 / 10, "reward_spread": 0.2, "time/step": 2.0})
        write_toy_step(run, step, PROMPTS)
        if step % 30 == 1:
            heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
            held = server.memory_info().rss / 2**20
            print(
                f"after {passed / 60:5.1f} min   server {held:6.0f} MiB   page {heap:6.1f} MiB",
                flush=True,
            )
        time.sleep(2)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
