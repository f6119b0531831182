"""What a critic said of every token, in the app: in numbers, in tables, and on the page where there is a critic."""

from __future__ import annotations

import base64
import csv
import io

import numpy as np
import pytest
from app_browser import choose_run, open_tab
from app_toys import floats, start_toy_run, write_toy_run, write_toy_step

from t2i_credit.app import credit_maps
from t2i_credit.app.runs import RunShelf
from t2i_credit.run_folder.reader import RunReader


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("values") / "runs"
    write_toy_run(root / "plain")
    run = start_toy_run(root / "valued")
    write_toy_step(run, 1, critic=True)
    lines = run.path / "metrics.jsonl"
    lines.write_text(lines.read_text().replace("{", '{"critic/weight": 0.0, '))
    run.finish("finished")
    return root


def test_the_change_of_the_value_is_sent_scaled_and_handed_out(runs):
    shelf = RunShelf(runs)
    arrays = RunReader(runs / "valued").step(1).arrays
    group = credit_maps.show(shelf, "valued", {})["group"]
    for sample in group["samples"]:
        shown = floats(sample["arrays"]["value_change"])
        np.testing.assert_array_equal(shown, arrays["value_change"][sample["place"]])
    assert group["scale"]["value"] > 0 and (shown < 0).any() and (shown > 0).any()
    asked = {"run": "valued", "step": 1, "kind": "csv"}
    made = credit_maps.save(shelf, asked)
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    place = int(rows[0]["sample"])
    assert np.float32(rows[0]["value_change"]) == arrays["value_change"][place, 0]
    plain = credit_maps.show(shelf, "plain", {})["group"]
    assert "value_change" not in plain["samples"][0]["arrays"] and plain["scale"]["value"] == 0


def test_the_map_is_sent_with_how_far_the_critic_was_believed(runs, tmp_path):
    assert credit_maps.show(RunShelf(runs), "plain", {})["group"]["critic_weight"] is None
    run = start_toy_run(tmp_path / "run", steps=0)
    for step, weight in ((1, 0.0), (2, 0.5)):
        write_toy_step(run, step, critic=True)
        run.append_metrics(step, {"reward": 0.5, "critic/weight": weight})
    told = [credit_maps.show(RunShelf(tmp_path), "run", {"step": step}) for step in (1, 2)]
    assert [one["group"]["critic_weight"] for one in told] == [0.0, 0.5]


def test_the_page_offers_the_map_where_there_is_a_critic(page, runs):
    choose_run(page, "valued")
    open_tab(page, "Credit maps")
    page.wait_for_selector('.choice [data-map="value_change"]')
    assert "not believed yet (weight 0)" in page.locator('[data-map="value_change"]').inner_text()
    page.locator('.choice [data-map="value_change"]').click()
    assert "here it went wrong" in page.locator(".stage-legend").inner_text()
    page.locator(".tile.stage").focus()
    page.keyboard.press("ArrowRight")
    found = float(page.locator('[data-number="value_change"]').get_attribute("data-value"))
    place = int(page.locator('.strip button[aria-pressed="true"]').get_attribute("data-place"))
    values = RunReader(runs / "valued").step(1).arrays["value_change"]
    assert found == pytest.approx(values[place, 0], abs=1e-6)
    assert "value change" in page.locator(".spread").inner_text().lower()
    choose_run(page, "plain")
    page.wait_for_function("() => document.querySelectorAll('.choice button').length === 3")
    assert page.locator('.choice [aria-pressed="true"]').get_attribute("data-map") != "value_change"
