"""The door of the server: serves the page's own scripts, lets through what the page needs, refuses everything else. In
particular nothing that reads a file by its path, takes an upload, or goes around the queue."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from . import components

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20  # of a request; the longest that the page sends is a prompt

# What Gradio's page asks for. Not in it, so refused: /gradio_api/file=, upload, stream, proxy=, component_server, run, api
ALLOWED = re.compile(
    r"""/ | /config/? | /theme\.css | /favicon\.ico | /robots\.txt | /manifest\.json
      | /login/? | /login_check/? | /logout | /(static|assets|svelte)/.+
      | /gradio_api/( info/? | startup-events | app_id/? | user/? | token/? | login_check/? | reset/? | cancel
                    | heartbeat/[\w-]+ | theme\.css | queue/(join|data|status) | call/.+ )""",
    re.VERBOSE,
)
UNSAFE = re.compile(
    r"(^|[/\\])\.\.([/\\]|$)|%|\\|\0"
)  # what is left of an encoded or climbing path


class Doorman:
    """ASGI middleware around the app."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves, refuses, or passes on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith("/t2i/") and scope["method"] in ("GET", "HEAD"):
            return await _asset(path.removeprefix("/t2i/"), send)
        if UNSAFE.search(path) or not ALLOWED.fullmatch(path):
            return await _answer(send, 403, b"This address is not served here.\n")
        if (refusal := _refused_body(scope)) is not None:
            return await _answer(send, *refusal)
        await self.app(scope, receive, send)


def _refused_body(scope: Scope) -> tuple[int, bytes] | None:
    """Why the body of a request is not taken, if so."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return None
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0" if b"transfer-encoding" not in headers else b"")
    if not length.isdigit():
        return 411, b"Say how long the request is.\n"
    if int(length) > MOST_BYTES:
        return 413, b"This request is too long.\n"
    if headers.get(b"content-type", b"").startswith(b"multipart/") and not scope["path"].startswith(
        "/login"
    ):
        return 403, b"Uploads are off.\n"
    return None


async def _asset(name: str, send: Send) -> None:
    """The page's script, or plotly."""
    if name in SCRIPTS:
        return await _answer(send, 200, SCRIPTS[name](), "text/javascript")
    await _answer(send, 404, b"There is no such file.\n")


@cache
def plotly() -> bytes:
    """The library that draws the curves; it comes with the Python package."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


SCRIPTS: dict[str, Callable[[], bytes]] = {"app.js": components.script, "plotly.js": plotly}


async def _answer(send: Send, status: int, body: bytes, kind: str = "text/plain") -> None:
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"max-age=3600" if status == 200 else b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
