"""Nobody is kept out: axe-core finds nothing serious on any tab, in the light and in the dark."""

import pytest
from app_browser import TABS, open_tab
from app_toys import write_paired_evaluation, write_toy_run

SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("access")
    write_toy_run(root / "other", seed=1)
    write_paired_evaluation(write_toy_run(root / "one"))
    return root


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_tab_has_a_serious_finding(page, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    if dark:
        page.locator(".theme").click()
    found = []
    for name, shown in TABS.items():
        open_tab(page, name, shown)
        for one in axe.run(page).response["violations"]:
            if one["impact"] in SERIOUS:
                found += [f"{name}: {one['id']}: {node['html'][:120]}" for node in one["nodes"]]
    assert not found, "\n".join(found)
