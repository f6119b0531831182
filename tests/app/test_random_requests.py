"""Random requests to the app's door and to the reward server: each is answered, none reaches what is shut, none is a 500."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_credit.app import guard
from t2i_credit.rewards.server import create_app
from t2i_credit.rewards.wire import pack_images

CASES = settings(max_examples=300, deadline=None, derandomize=True, database=None)
PIECES = [
    *(
        "",
        "gradio_api",
        "queue",
        "join",
        "data",
        "file=",
        "..",
        "%2e%2e",
        "upload",
        "stream",
        "static",
    ),
    *(
        "assets",
        "login",
        "config",
        "t2i",
        "app.js",
        "proxy=http:",
        "run",
        "api",
        "\\..\\",
        "\0",
        "é",
        "reset",
    ),
]
HEADERS = [
    *("origin", "host", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "content-length"),
    *("transfer-encoding", "content-type", "cookie", "x-forwarded-host", "accept-encoding"),
]
VALUES = [
    *(
        "",
        "null",
        "http://127.0.0.1",
        "http://evil.example",
        "127.0.0.1",
        "evil.example",
        "same-origin",
    ),
    *(
        "cross-site",
        "navigate",
        "document",
        "5",
        "-1",
        "99999999999999999999",
        "chunked",
        "multipart/form-data",
    ),
    *("application/json", "a=b; c", "\xff"),
]


@CASES
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "TRACE"]),
    path=st.lists(st.sampled_from(PIECES), max_size=5).map(lambda parts: "/" + "/".join(parts)),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), st.sampled_from(VALUES)), max_size=6),
    body=st.one_of(
        st.binary(max_size=64), st.sampled_from([b"{", b"[" * 5000, b'{"path": 1, "meta": 2}'])
    ),
)
def test_the_door_answers_every_request_and_lets_in_what_the_page_needs(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await guard._answer(send, 200, b"inside")

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1),
    }
    door = guard.Doorman(app, known=lambda scope: False, say=lambda line: None)
    door.logins.tried = lambda app, *rest: app(rest[-1])  # type: ignore[method-assign]  # without its pauses
    asyncio.run(door(scope, receive, send))
    assert sent[0]["status"] in (200, 400, 401, 403, 404, 408, 411, 413)
    for one in reached:
        assert not any(shut in one for shut in ("..", "%", "\\", "\0"))
        if not one.startswith(("/static/", "/assets/", "/svelte/")):
            assert not any(name in one for name in ("file=", "upload", "stream", "proxy=", "/run"))
    given = dict(headers)
    if reached and (origin := given.get("origin")):
        hosts = {given.get("host"), given.get("x-forwarded-host")}
        assert origin.partition("://")[2] in hosts


class Even:
    """A reward that likes all images."""

    def check(self, prompts: Any) -> list[str]:
        return []

    def __call__(
        self, images: torch.Tensor, prompts: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return images.mean((1, 2, 3)), {}


SERVER = create_app(Even(), names=["even"], token=None, max_megabytes=1)
PNG = pack_images(torch.zeros(1, 3, 4, 4))[0]
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(PNG)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["prompts", "images", "text", "spec", "negative", "tag", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)
PROMPT = st.one_of(
    JSON,
    st.fixed_dictionaries({"text": st.text(max_size=8)}, optional={"spec": JSON, "negative": JSON}),
)
QUESTION = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {
            "prompts": st.lists(PROMPT, max_size=3),
            "images": st.lists(st.one_of(st.just(PNG), st.text(max_size=30), JSON), max_size=3),
        }
    ),
)


@CASES
@given(
    path=st.sampled_from(["/score", "/check", "/health", "/nothing"]),
    question=QUESTION,
    kind=st.sampled_from(["application/json", "text/plain", ""]),
)
def test_the_reward_server_answers_every_request(path: str, question: Any, kind: str) -> None:
    content = json.dumps(question).encode()

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=SERVER, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, content=content, headers={"content-type": kind})

    answer = asyncio.run(ask())
    assert answer.status_code in (200, 404, 405, 413, 415, 422)
    if answer.status_code in (413, 415, 422):
        assert "\n" not in answer.json()["error"]
