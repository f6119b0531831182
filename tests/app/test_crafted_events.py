"""Events that no page sends: each is answered in a line, and the console stays quiet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from app_toys import served, write_toy_run

HALF = "\ud800"  # of a letter; no bytes stand for it
EVENTS = [99999, -1, float("nan"), None, "x", [], {}, 1e308, True]
VALUES = [[], [None] * 3, "x", None, {}, [[[]]], [HALF], [1e308] * 5, ["no such choice"] * 12]
SESSIONS = ["a", HALF, None, 3]
BODIES = [
    *("null", "[]", "3", '"x"', "{}", "1e999", "[" * 900 + "]" * 900, "[" * 9000, ""),
    '{"session_hash": "\\ud800", "fn_index": 1e999, "event_id": null}',
    '{"session_hash": [], "fn_index": -1, "event_id": "\\ud800"}',
    '{"data": [], "session_hash": "\\ud800"}',
]
ADDRESSES = [
    *("static/" + "a" * 5000, "assets/" + "a/" * 3000, "svelte/" + "\N{SNOWMAN}" * 300),
    *(
        "gradio_api/queue/data",
        "gradio_api/queue/data?session_hash=%ff",
        "theme.css?x=" + "a" * 3000,
    ),
    *("config?x=%ed%a0%80", "gradio_api/queue/data?session_hash=" + "a" * 3000),
]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A visitor, and the file that holds what the console said."""
    root = tmp_path_factory.mktemp("heard")
    write_toy_run(root / "runs" / "one")
    log = root / "console.txt"
    with (
        log.open("w") as file,
        served(root / "runs", log=file) as facts,
        httpx.Client(base_url=facts["address"], timeout=120) as client,
    ):
        yield client, log


def test_crafted_events_leave_nothing_on_the_console(heard: tuple[httpx.Client, Path]) -> None:
    client, log = heard
    crafted = [
        *((event, [], "a") for event in EVENTS),
        *((0, [], session) for session in SESSIONS),
        *((event, values, "a") for event, values in itertools.product(range(12), VALUES)),
    ]
    asked = [
        json.dumps({"fn_index": event, "data": data, "session_hash": session, "event_data": {}})
        for event, data, session in crafted
    ]
    paths = ["queue/join", "reset", "cancel", "call/look"]
    asks = [("queue/join", body) for body in asked] + list(itertools.product(paths, BODIES))
    for path, body in asks:
        headers = {"content-type": "application/json"}
        answer = client.post(f"gradio_api/{path}", content=body, headers=headers)
        assert answer.status_code in (200, 400, 403, 404, 422), (path, body[:200])
    for address in ADDRESSES:
        with client.stream("GET", address) as answer:
            assert answer.status_code < 500, address[:80]
            next(answer.iter_bytes(), None)
    assert client.get("").status_code == 200
    said = log.read_text()
    assert "Traceback" not in said and "ERROR" not in said, said[-2000:]
