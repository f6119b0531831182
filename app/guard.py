"""The door of the server: serves the page's own scripts, lets through what the page needs, refuses everything else. In
particular nothing that reads a file by its path, takes an upload, fetches an address, or goes around the queue; and
nothing that another page asks for in a visitor's name."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException

from . import components
from .asgi import App, Receive, Scope, Send
from .handed_out import HandedOut
from .logins import MOST_BYTES as MOST_LOGIN_BYTES
from .logins import Logins

if TYPE_CHECKING:
    from .exports import Export

MOST_BYTES = 1 << 20  # of a request; the longest that the page sends is a prompt
LONGEST_ADDRESS = 1000  # letters of its path
PIECE = 1 << 16  # bytes of an answer that wait for a visitor who does not read
BODY_SECONDS = 30.0  # for the whole of it
OURS = (b"same-origin", b"none")  # Sec-Fetch-Site of our own page, and of an address that was typed
WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")

# What Gradio's page asks for. Not in it, so refused: /gradio_api/file=, upload, stream, proxy=, component_server, run, api
ALLOWED = re.compile(
    r"""/ | /config/? | /theme\.css | /favicon\.ico | /robots\.txt | /manifest\.json
      | /login/? | /login_check/? | /logout | /(static|assets|svelte)/.+
      | /gradio_api/( info/? | startup-events | app_id/? | user/? | token/? | login_check/? | reset/? | cancel
                    | heartbeat/[\w-]+ | theme\.css | queue/(join|data|status) )""",
    re.VERBOSE,
)
# Gradio itself asks no login for these
MEMBERS = re.compile(r"/gradio_api/(reset/?|cancel|heartbeat/[\w-]+)")
# of the runs, by this door alone
HANDED_OUT = ("/t2i/report", "/t2i/page", "/t2i/archive")
SAME_SITE = re.compile(rb"samesite=\w+", re.IGNORECASE)
NO_FRAMES = [(b"x-frame-options", b"DENY"), (b"content-security-policy", b"frame-ancestors 'none'")]
UNSAFE = re.compile(
    r"(^|[/\\])\.\.([/\\]|$)|%|\\|\0"
)  # what is left of an encoded or climbing path


class Doorman:
    """ASGI middleware around the app.

    Args:
        app: the app.
        our_name: whether a name that a request asks for is this server's; None = any is. A foreign page whose name was
            bent to this machine's address (DNS rebinding) asks for its own.
        known: whether a request comes with the cookie of a login; None = nobody needs one.
        events: {number: how many values it takes} of the page's events; None = any is let through.
        say: called with a line about a login that failed.
        report: (run, evaluation) to the page of that evaluation, by their names; raises UserError or OSError where there is
            none. None = no page is served.
        export: (kind, what was asked for) to a file of a run (exports.py); raises as `report` does. None = none is.
        ended: whether the server is being closed.
    """

    def __init__(
        self,
        app: App,
        our_name: Callable[[str], bool] | None = None,
        known: Callable[[Scope], bool] | None = None,
        events: Mapping[int, int] | None = None,
        say: Callable[[str], None] = print,
        report: Callable[[str, str], bytes] | None = None,
        export: Callable[[str, dict[str, str]], Export] | None = None,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.our_name, self.known, self.events = app, our_name, known, events
        self.handed = HandedOut(report, export, _answer)
        self.logins = Logins(say, _answer, ended)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves, refuses, or passes on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if self.our_name is not None and not self.our_name(_asked_name(scope)):
            return await _answer(send, 403, b"Without a login, only http://127.0.0.1 is served.\n")
        if _of_another_page(scope):
            return await _answer(send, 403, b"Another page asks for this.\n")
        send = _unshared(send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if len(path.encode()) > LONGEST_ADDRESS:
            return await _answer(send, 414, b"This address is too long.\n")
        if path in HANDED_OUT and scope["method"] == "HEAD":
            return await _answer(send, 405, b"This is handed out by GET alone.\n")
        if path in HANDED_OUT and scope["method"] == "GET":
            if self.known is not None and not self.known(scope):
                return await _answer(send, 401, b"Log in first.\n")
            asked = {n: v[0] for n, v in parse_qs(scope["query_string"].decode("latin-1")).items()}
            if await self.handed.serve(path.removeprefix("/t2i/"), asked, receive, send):
                return None
        if path.startswith("/t2i/") and scope["method"] in ("GET", "HEAD"):
            return await _asset(path.removeprefix("/t2i/"), send)
        if UNSAFE.search(path) or not ALLOWED.fullmatch(path):
            return await _answer(send, 403, b"This address is not served here.\n")
        if self.known is not None and MEMBERS.fullmatch(path) and not self.known(scope):
            return await _answer(send, 401, b"Log in first.\n")
        if scope["method"] not in WITHOUT_BODY:
            most = MOST_LOGIN_BYTES if path.startswith("/login") else MOST_BYTES
            if (refusal := _refused_head(scope, most)) is not None:
                return await _answer(send, *refusal)
            try:
                body = await asyncio.wait_for(_body(receive, most), BODY_SECONDS)
            except TimeoutError:
                return await _answer(send, 408, b"This request takes too long.\n")
            if len(body) > most:
                return await _answer(send, 413, b"This request is too long.\n")
            refusal = None
            if not path.startswith("/login"):
                events = self.events if path.endswith("/queue/join") else None
                refusal = _refused_body(body, events)
            if refusal is not None:
                return await _answer(send, *refusal)
            read, receive = receive, _again(body, receive)
            if path.rstrip("/") == "/login" and self.known is not None:
                login = partial(self.app, scope, receive)
                return await self.logins.tried(login, scope, read, send)
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            # a visitor's page asks for the events of a server before this one: Gradio begins an answer, and stops
            if not (path.endswith("/queue/data") and isinstance(error.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body", "body": b""})


def _asked_name(scope: Scope) -> str:
    """The server's name that a request asks for, without its port; "" if it names none, or several."""
    names = [value for name, value in scope["headers"] if name == b"host"]
    told = names[0].decode("latin-1").lower() if len(names) == 1 else ""
    return re.sub(r":\d*$", "", told).strip("[]")


def _of_another_page(scope: Scope) -> bool:
    """Whether a browser asks on behalf of a page that is not ours; the visitor who follows a link asks for himself."""
    headers = dict(scope["headers"])
    # the latter is that of a proxy before us
    named = {headers.get(name) for name in (b"host", b"x-forwarded-host")}
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] not in named:
        return True
    asked = (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest"))
    # to the page itself alone: a link elsewhere may not log out
    begins = scope["method"] == "GET" and scope["path"] in ("/", "")
    follows = begins and asked == (b"navigate", b"document")
    return headers.get(b"sec-fetch-site", OURS[0]) not in OURS and not follows


def _unshared(send: Send) -> Send:
    """Answers that no other page may read, show in a frame, or get by a cookie of ours."""

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, SAME_SITE.sub(b"SameSite=Lax", value) if name == b"set-cookie" else value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": [*kept, *NO_FRAMES]}
        await send(message)

    return sent


async def _body(receive: Receive, most: int) -> bytes:
    """The body of a request: what comes, whatever it said; a little more than is taken at most."""
    parts, size, more = [], 0, True
    while more and size <= most:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What hands out a body that was read already, then what comes after it."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return replayed


def _refused_body(body: bytes, events: Mapping[int, int] | None) -> tuple[int, bytes] | None:
    """Why the content of a request is not taken, if so. Gradio fetches whatever a value calls a file into its cache, also from
    other servers, before a function of ours sees it; and it stumbles over numbers and letters that its answers cannot hold,
    and over events that the page does not have."""
    files = []

    def look(entry: dict[str, Any]) -> dict[str, Any]:
        if "path" in entry and "meta" in entry:
            files.append(entry)
        return entry

    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError(text)
        return number

    try:
        asked = json.loads(body, object_hook=look, parse_float=finite, parse_constant=finite)
        json.dumps(asked, ensure_ascii=False).encode()  # half a letter has no bytes
    except (ValueError, RecursionError):
        return 400, b"This request is no JSON.\n"
    if files:
        return 403, b"Files are not taken.\n"
    if not isinstance(asked, dict):
        return 400, b"This request is no JSON object.\n"
    if events is not None:
        event, data = asked.get("fn_index"), asked.get("data")
        if type(event) is not int or event not in events:
            return 404, b"The page has no such event.\n"
        if not isinstance(data, list) or len(data) != events[event]:
            return 400, b"This event takes other values.\n"
    return None


def _refused_head(scope: Scope, most: int) -> tuple[int, bytes] | None:
    """Why the body of a request is not even read, if so."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return 411, b"Say how long the request is.\n"
    if int(length) > most:
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


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    kind: str = "text/plain",
    more: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    kept = b"max-age=3600" if status == 200 else b"no-store"
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *(more or [(b"cache-control", kept)]),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for first in range(0, max(1, len(body)), PIECE):
        piece = body[first : first + PIECE]
        left = first + PIECE < len(body)
        await send({"type": "http.response.body", "body": piece, "more_body": left})
