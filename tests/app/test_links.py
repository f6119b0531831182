"""What forms say in the page's address, and what they take from it."""

import asyncio
import inspect

import pytest
from app_toys import write_toy_run

from t2i_credit.app import compare, playground
from t2i_credit.app.address import COMPARE, PLAYGROUND, link_of
from t2i_credit.app.page import build_page
from t2i_credit.app.runs import RunShelf


def loading(root):
    async def built():  # in a loop that is closed again
        return build_page(RunShelf(root))

    return next(fn for fn in asyncio.run(built()).fns.values() if fn.name == "first").fn


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Calls what the page begins with; gives {label or id of a component: what it is set to}."""
    root = tmp_path_factory.mktemp("links")
    for name in ("one", "two", "a,b"):
        write_toy_run(root / name)
    load = loading(root)

    def begin(**address):
        found = load(address)
        return {
            getattr(part, "elem_id", None)
            or getattr(part, "label", None)
            or f"state {part._id}": value
            for part, value in found.items()
        }

    return begin


def value(update):
    return update["value"] if isinstance(update, dict) else update.value


def test_the_playground_and_compare_begin_as_an_address_says(opened):
    found = opened(
        asked="a red circle",
        negative="a blue one",
        mode="two negative prompts",
        guidance="3.5",
        images="2",
        seed="17",
        push="visual_figure",
        runs="two,a%2Cb",
        curve="entropy",
        smoothing="10",
        along="images",
        compared="a blue square",
        at="5",
    )
    assert value(found["play-prompt"]) == "a red circle"
    assert value(found["play-negative"]) == "a blue one"
    assert value(found["play-mode"]) == "two negative prompts"
    assert value(found["Guidance"]) == 3.5 and value(found["Images"]) == 2
    assert value(found["Seed"]) == 17 and value(found["play-credit"]) == "visual_figure"
    assert value(found["compare-runs"]) == ["two", "a,b"]
    assert value(found["compare-metric"]) == "entropy" and value(found["compare-smoothing"]) == 10
    assert value(found["compare-axis"]) == "images"
    assert value(found["compare-prompt"]) == "a blue square"
    assert 5 in found.values()


def test_a_browser_can_be_opened_at_everything_that_an_address_holds():
    assert link_of("asked=a ring&seed=3") == "#tab=playground&asked=a+ring&seed=3"
    assert link_of("runs=one,two&at=5&tab=compare") == "#tab=compare&runs=one%2Ctwo&at=5"
    for module, names in ((playground, PLAYGROUND), (compare, COMPARE)):
        source = inspect.getsource(module)
        assert [name for name in names if f'"{name}"' not in source] == []


HOSTILE = {
    "asked": ["x" * 5000, 3, None],
    "mode": ["three", "__proto__"],
    "guidance": ["nan", "inf", "-1", "1e308", "many"],
    "images": ["0", "100000"],
    "seed": ["-1", "1.5", "1e300"],
    "push": ["os:system", "../gcpo"],
    "generator2": ["/etc", "../one"],
    "runs": ["../etc", "none,nothing", ""],
    "smoothing": ["-5", "None"],
    "along": ["sideways"],
    "at": ["-1", "1e9", "9" * 30],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in HOSTILE.items() for t in texts])
def test_what_a_field_cannot_be_set_to_is_left_alone(opened, name, text):
    assert opened(**{name: text}).keys() == opened().keys()


@pytest.mark.parametrize("address", [None, [], "x"])
def test_an_address_that_is_none_is_none(tmp_path, address):
    write_toy_run(tmp_path / "one")
    assert loading(tmp_path)(address)
