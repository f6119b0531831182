"""Who may reach the app, and how the parts of the page share the machine."""

from __future__ import annotations

import asyncio

import pytest
from gradio.state_holder import SessionState

from t2i_credit.app.page import build_page
from t2i_credit.app.server import check_login, free_port, is_loopback, start
from t2i_credit.errors import UserError


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_only_this_machine_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_an_address_that_others_can_reach_demands_a_login():
    with pytest.raises(UserError, match="needs a login"):
        check_login("0.0.0.0", None)
    assert check_login("127.0.0.1", None) is None
    assert check_login("0.0.0.0", "me:a long password") == ("me", "a long password")


@pytest.mark.parametrize("login", ["me", "me:", ":long enough", "me:short"])
def test_a_login_that_is_none_is_refused(login):
    with pytest.raises(UserError, match="NAME:PASSWORD"):
        check_login("127.0.0.1", login)


def test_a_port_in_use_is_one_line(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port} is in use"):
            start(tmp_path, port=port)
    assert free_port("127.0.0.1", 0) > 0


def test_a_file_in_place_of_the_runs_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder of runs"):
        start(tmp_path / "file", port=0)


def test_the_clock_updates_states_alone(shelf):
    # Gradio keeps a component and its value for each update: a page left open would grow with every tick
    async def built():  # in a loop that is closed again
        return build_page(shelf)

    page = asyncio.run(built())
    ticks = [event for event in page.fns.values() if "tick" in dict(map(reversed, event.targets))]
    assert ticks
    for event in ticks:
        assert event.outputs and all(block.stateful for block in event.outputs)


def test_whatever_reads_records_waits_in_one_line_for_two_places(shelf):
    async def built():
        return build_page(shelf)

    page = asyncio.run(built())
    reading = [fn for fn in page.fns.values() if fn.concurrency_id == "reading"]
    asked = {name for fn in reading for _, name in fn.targets}
    assert asked >= {"choose", "film", "save", "pick", "change", "select", "input"}
    assert {fn.concurrency_limit for fn in reading} == {2}
    ticks = [fn for fn in page.fns.values() if "tick" in {name for _, name in fn.targets}]
    assert ticks and not {fn.concurrency_id for fn in ticks} & {"reading"}  # nor do they wait


def test_a_look_that_was_asked_too_early_undoes_nothing(shelf):
    # On a slow server it may be answered after the first list of runs came; the page would never find out about them
    async def late():
        page = build_page(shelf)
        (begin,) = (fn for fn in page.fns.values() if fn.name == "begin")
        look = next(fn for fn in page.fns.values() if fn.name == "look")
        state = SessionState(page)
        early = look.fn(None, None, "training", *[None] * (len(look.inputs) - 3))
        await page.postprocess_data(begin, begin.fn(None), state)
        known = {block._id: state[block._id] for block in look.outputs}
        await page.postprocess_data(look, early, state)
        return known, {block._id: state[block._id] for block in look.outputs}

    before, after = asyncio.run(late())
    assert any(before.values()) and after == before
