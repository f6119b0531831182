"""Serves a built reward over HTTP: POST /score, POST /check, GET /health. Knows no reward by name, reads no pickle.

Every request is checked before its body is read: token, kind and size. Rewards run one at a time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from torch import Tensor

from ..errors import UserError
from ..interfaces import Prompt
from .connections import end_silent
from .wire import (
    CheckAnswer,
    CheckRequest,
    ScoreAnswer,
    ScoreRequest,
    WireError,
    WireSizeError,
    parse,
    unpack_images,
    unpack_prompts,
)

AT_ONCE = 16  # requests held at a time; more are told to come back (503)
BODY_SECONDS = 300.0  # for the whole body of a request


class ServedReward(Protocol):
    """The weighted sum of several rewards."""

    def check(self, prompts: Sequence[Prompt]) -> list[str]: ...

    def __call__(
        self, images: Tensor, prompts: Sequence[Prompt]
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


def create_app(
    reward: ServedReward, *, names: Sequence[str], token: str | None, max_megabytes: float
) -> FastAPI:
    """The application.

    Args:
        reward: what is served.
        names: of its parts, for /health.
        token: what a client must send as `Authorization: Bearer TOKEN`; None = nothing.
        max_megabytes: of a request's body, and again of its unpacked pixels.
    """
    limit = int(max_megabytes * 2**20)
    turn = threading.Lock()
    held: set[Request] = set()

    async def admit(request: Request) -> None:
        given = request.headers.get("authorization", "")
        wanted = f"Bearer {token}"
        if token is not None and not secrets.compare_digest(given.encode(), wanted.encode()):
            raise Refusal(401, "the token is missing or wrong")

    # no pages of its own: they would load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(admit)])

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    def check(body: bytes) -> dict[str, Any]:
        prompts = unpack_prompts(parse(CheckRequest, body).prompts)
        with turn:
            lines = reward.check(prompts)
        return CheckAnswer(prompts=len(prompts), lines=lines).model_dump()

    def score(body: bytes) -> dict[str, Any]:
        message = parse(ScoreRequest, body)
        if not message.images or len(message.images) != len(message.prompts):
            counts = f"{len(message.images)} images for {len(message.prompts)} prompts"
            raise WireError(f"{counts}; as many are needed, and at least one")
        prompts = unpack_prompts(message.prompts)
        with turn:  # the pixels of one request at a time
            images = unpack_images(message.images, max_bytes=limit)
            total, parts = reward(images, prompts)
        listed = {name: part.tolist() for name, part in parts.items()}
        return ScoreAnswer(total=total.tolist(), parts=listed).model_dump()

    async def answer(request: Request, work: Callable[[bytes], dict[str, Any]]) -> JSONResponse:
        if len(held) >= AT_ONCE:
            raise Refusal(503, f"{AT_ONCE} requests are being answered; come back later")
        held.add(request)
        try:
            body = await asyncio.wait_for(_body(request, limit), BODY_SECONDS)
            return JSONResponse(await run_in_threadpool(work, body))
        except TimeoutError:
            raise Refusal(408, f"the request took more than {BODY_SECONDS:g} s to come") from None
        except ClientDisconnect:  # nobody reads this; it is no error of ours to tell of
            raise Refusal(400, "the request broke off") from None
        except UserError as error:
            status = 413 if isinstance(error, WireSizeError) else 422
            raise Refusal(status, str(error)) from error
        finally:
            held.discard(request)

    @app.post("/check")
    async def post_check(request: Request) -> JSONResponse:
        return await answer(request, check)

    @app.post("/score")
    async def post_score(request: Request) -> JSONResponse:
        return await answer(request, score)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"rewards": list(names), "max_megabytes": max_megabytes}

    return app


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, never more of it than the limit."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":  # which a web page cannot send here without asking first
        raise Refusal(415, f"content type {kind or 'none'} is not allowed; application/json")
    if (packed := request.headers.get("content-encoding", "identity")) != "identity":
        raise Refusal(415, f"content encoding {packed[:40]!r} is not allowed; send it as it is")
    too_large = Refusal(413, f"the request is larger than {limit} bytes; send fewer images at once")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """A socket that is bound to the address.

    Raises:
        UserError: it is taken, does not exist, or can be reached from other machines although there is no token.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if token is None and not ipaddress.ip_address(address[0]).is_loopback:
            raise UserError(f"--host: {host} can be reached by others; serve it with a --token")
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--host, --port: cannot listen on {host}:{port}: {reason}") from error


def server_of(app: FastAPI) -> uvicorn.Server:
    """What answers requests: `run(sockets=[listener])` until its `should_exit` is set."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    end_silent(server)
    return server


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answers requests until it is interrupted."""
    with suppress(KeyboardInterrupt):
        server_of(app).run(sockets=[listener])
