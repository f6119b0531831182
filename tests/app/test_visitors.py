"""Other pages in a visitor's browser: nothing is done in the visitor's name, nothing is read, and no request says how long it is
and is longer."""

from __future__ import annotations

import asyncio
import socket
import time

import httpx
import pytest
from app_toys import served, write_paired_evaluation, write_toy_run

from t2i_credit.app import guard, logins

RIGHT = {"username": "me", "password": "a long password"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    write_toy_run(root / "one")
    return root


@pytest.fixture(scope="module")
def address(place):
    with served(place, login="me:a long password") as facts:
        yield facts["address"]


@pytest.fixture(scope="module")
def visitor(address):
    """Somebody who has logged in."""
    with httpx.Client(base_url=address, timeout=120) as client:
        assert client.post("login", data=RIGHT).status_code == 200
        yield client


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "https://evil.example", "host": "t2i.example.com"},
    {"origin": "http://127.0.0.1:1"},  # another port of this machine
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_page_gets_nothing_in_the_visitors_name(visitor, headers):
    for path in ("", "config", "t2i/app.js", "gradio_api/info"):
        assert visitor.get(path, headers=headers).status_code == 403
    body = {"data": [], "fn_index": 0, "session_hash": "abc"}
    joined = visitor.post("gradio_api/queue/join", json=body, headers=headers)
    assert joined.status_code == 403
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    asked = visitor.options("gradio_api/queue/join", headers={**headers, **asks})
    for answer in (joined, asked):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_page_and_a_link_to_it_are_answered(visitor, address):
    host = address.rstrip("/").partition("://")[2]
    ours = {"origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for headers in (
        ours,
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        # behind a proxy that gives it a name, told in either way
        {"origin": "https://runs.example", "host": "runs.example"},
        {"origin": "https://runs.example", "x-forwarded-host": "runs.example"},
    ):
        shown = visitor.get("config", headers=headers)
        assert shown.status_code == 200, headers
        assert not [name for name in shown.headers if name.startswith("access-control")]
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert visitor.post("gradio_api/queue/join", json={}, headers=link).status_code == 403


def test_no_frame_shows_the_page_and_its_cookies_stay_with_it(visitor, address):
    shown = visitor.get("")
    assert shown.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    answer = httpx.post(f"{address}login", data=RIGHT)
    cookies = [c for c in answer.headers.get_list("set-cookie") if c.startswith("access-token")]
    assert len(cookies) == 2
    for cookie in cookies:
        parts = [part.strip().lower() for part in cookie.split(";")[1:]]
        assert "samesite=lax" in parts and "httponly" in parts


def raw(address, lines, body):
    """What the server answers to a request that is written by hand."""
    host, _, port = address.rstrip("/").partition("://")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sent:
        sent.sendall("\r\n".join([*lines, f"host: {host}:{port}", "", ""]).encode() + body)
        return sent.recv(65536).decode("latin-1")


@pytest.mark.parametrize(
    "lines",
    [["content-length: 5", "transfer-encoding: chunked"], ["transfer-encoding: chunked"]],
)
@pytest.mark.parametrize("path", ["login", "gradio_api/queue/join"])
def test_a_request_that_says_two_lengths_is_refused(address, lines, path):
    head = [f"POST /{path} HTTP/1.1", "content-type: application/json", *lines]
    answer = raw(address, head, b"5\r\nhello\r\n0\r\n\r\n")
    assert answer.split()[1] in ("400", "411"), answer


def doorman(messages, path="/login"):
    """What the door answers to a POST that comes in these pieces, and how many it took."""

    async def app(scope, receive, send):
        await guard._answer(send, 200, (await receive())["body"])

    taken, sent = [], []

    async def receive():
        if len(taken) == len(messages):
            await asyncio.sleep(60)
        taken.append(len(taken))
        return {"type": "http.request", "body": messages[taken[-1]], "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"content-length", b"5")],
    }
    asyncio.run(guard.Doorman(app)(scope, receive, send))
    return sent[0]["status"], len(taken)


def test_bytes_are_counted_where_they_are_read():
    piece = b"x" * (1 << 18)
    status, taken = doorman([piece] * 100, "/gradio_api/queue/join")
    assert status == 413 and taken == 5  # a mebibyte, and the piece beyond it
    assert doorman([piece] * 100) == (413, 1)  # a login is short


def test_a_request_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    status, _ = doorman([b"x"])
    assert status == 408


def test_who_guesses_waits_longer_every_time_and_is_told_of(monkeypatch):
    pauses, told = [], []
    yields = asyncio.sleep

    async def pause(seconds):
        pauses[-1] += seconds
        await yields(0)

    monkeypatch.setattr(logins.asyncio, "sleep", pause)

    async def app(scope, receive, send):
        right = b"right" in (await receive())["body"]
        await guard._answer(send, 200 if right else 400, b"")

    door = guard.Doorman(app, known=lambda scope: False, say=told.append)

    def login(word, address="10.0.0.1"):
        pauses.append(0)
        came = []

        async def receive():
            if came:
                await asyncio.Event().wait()
            came.append(word)
            return {"type": "http.request", "body": word, "more_body": False}

        async def send(message):
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/login",
            "headers": [],
            "client": (address, 1),
        }
        asyncio.run(door(scope, receive, send))

    for _ in range(9):
        login(b"wrong")
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 32, 60]
    assert told[0] == "login refused: 1 in a row from 10.0.0.1" and len(told) == 9
    login(b"wrong", "10.0.0.2")  # somebody else need not wait
    login(b"right")
    login(b"right")
    assert pauses[9:] == [0, 60, 0]  # forgotten


@pytest.mark.parametrize("path", ["reset", "cancel", "heartbeat/abc"])
def test_without_the_cookie_nobody_resets_cancels_or_listens(address, path):
    with httpx.Client(base_url=address, timeout=60) as stranger:
        ask = stranger.get if path.startswith("heartbeat") else stranger.post
        more = (
            {}
            if path.startswith("heartbeat")
            else {"json": {"event_id": "a", "fn_index": 0, "session_hash": "b"}}
        )
        assert ask(f"gradio_api/{path}", **more).status_code == 401


def test_a_header_gives_nobody_another_address(place):
    with (
        served(place, login="me:a long password") as facts,
        httpx.Client(base_url=facts["address"], timeout=60) as guesser,
    ):
        began = time.monotonic()
        for n in range(3):
            headers = {"x-forwarded-for": f"10.0.0.{n}"}
            wrong = guesser.post("login", data={**RIGHT, "password": "wrong"}, headers=headers)
            assert wrong.status_code == 400
        assert time.monotonic() - began > 1.4  # half a second, and one


def test_a_link_elsewhere_logs_nobody_out(visitor):
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert visitor.get("logout", headers=link).status_code == 403
    assert visitor.get("", headers=link).status_code == 200
    assert visitor.get("config").status_code == 200  # still logged in


def test_a_report_is_shown_to_members_alone_and_apart_from_the_app(visitor, address, place):
    asked = {"run": "one", "evaluation": "list-cfg2"}
    write_paired_evaluation(place / "one")
    assert httpx.get(f"{address}t2i/report", params=asked).status_code == 401
    shown = visitor.get("t2i/report", params=asked)
    assert shown.status_code == 200 and "all of it" in shown.text
    assert shown.headers["content-type"].startswith("text/html")
    policies = shown.headers.get_list("content-security-policy")
    assert any("sandbox allow-scripts;" in one and "default-src 'none'" in one for one in policies)
    assert shown.headers["cache-control"] == "no-store"
    for headers in FOREIGN:
        assert visitor.get("t2i/report", params=asked, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("run", "evaluation"),
    [
        ("one", "none"),
        ("none", "list-cfg2"),
        ("../one", "list-cfg2"),
        ("one", "../list-cfg2"),
        ("one", "/etc/passwd"),
        ("one", "linked"),
        ("one", ""),
        ("", "list-cfg2"),
        ("one", "a\0b"),
    ],
)
def test_nothing_but_a_report_of_a_run_is_read(visitor, place, run, evaluation):
    outside = place.parent / "outside.html"
    outside.write_text("secret")
    (place / "one" / "evaluations").mkdir(exist_ok=True)
    link = place / "one" / "evaluations" / "linked.html"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    answer = visitor.get("t2i/report", params={"run": run, "evaluation": evaluation})
    assert answer.status_code == 404 and "secret" not in answer.text
    assert visitor.post("t2i/report", params={"run": run}).status_code == 403
