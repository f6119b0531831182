"""Connections that say nothing, or not all, keep nobody out and are ended; requests beyond those that are held come back."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from remote_rewards import MEAN, PROMPTS, eight_bit, running, serving

from t2i_credit.rewards import server as served
from t2i_credit.rewards.connections import end_silent
from t2i_credit.rewards.remote import remote
from t2i_credit.rewards.server import create_app
from t2i_credit.rewards.wire import pack_images, pack_prompts


def connect(url: str) -> socket.socket:
    host, _, port = url.partition("://")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_silent_connections_keep_nobody_out() -> None:
    with serving({MEAN: {}}) as url:
        silent = [connect(url) for _ in range(3 * served.AT_ONCE)]
        total, _ = remote(url=url, retries=0)(eight_bit(2), PROMPTS[:2])
        assert torch.isfinite(total).all()
        for one in silent:
            one.close()


@contextmanager
def answering(after: float, size: int = 0) -> Iterator[str]:
    """A server that answers anything at once with so many bytes, and waits for a visitor no longer than that."""

    async def app(scope: object, receive: object, send: Any) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="off", timeout_keep_alive=60)
    )  # type: ignore[arg-type]
    end_silent(server, after=after, look_every=0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        running(server, listener) as address,
    ):
        yield address


@pytest.mark.parametrize(
    "first", [b"", b"GET / HTTP/1.1\r\nX-Slow: ", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
)
def test_a_connection_without_a_whole_request_is_ended(first: bytes) -> None:
    """Silent from the start, amid its first request, and amid the one after an answer."""
    with answering(after=0.3) as url, connect(url) as one:
        began = time.monotonic()
        one.sendall(first)
        if first.endswith(b"\r\n\r\n"):
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        with suppress(OSError):  # drips, so that it is never idle
            while time.monotonic() - began < 40:
                one.sendall(b"x" if first else b"")
                one.settimeout(0.05)
                with suppress(TimeoutError):
                    if one.recv(4096) == b"":
                        break
        assert 0.2 < time.monotonic() - began < 30
    with answering(after=0.3) as url:
        assert httpx.get(url).status_code == 200


def test_a_request_beyond_those_that_are_held_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "AT_ONCE", 2)
    going, done = threading.Semaphore(0), threading.Event()

    class Slow:
        def check(self, prompts: object) -> list[str]:
            return []

        def __call__(
            self, images: torch.Tensor, prompts: object
        ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            going.release()
            assert done.wait(60)
            return images.mean((1, 2, 3)), {}

    app = create_app(Slow(), names=["slow"], token=None, max_megabytes=8)
    question = {
        "prompts": [one.model_dump() for one in pack_prompts(PROMPTS[:1])],
        "images": pack_images(eight_bit(1)),
    }

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            held = [asyncio.create_task(client.post("/score", json=question)) for _ in range(2)]
            while not going.acquire(blocking=False):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            third = await client.post("/score", json=question)
            assert "2 requests are being answered; come back later" in third.json()["error"]
            done.set()
            found = [(await one).status_code for one in held]
            later = await client.post("/score", json=question)
            return [third.status_code, *found, later.status_code]

    assert asyncio.run(ask()) == [503, 200, 200, 200]


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    size = 64 << 20  # more than the system keeps for a connection
    with answering(after=0.3, size=size) as url, connect(url) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(2)
        got = 0
        one.settimeout(30)
        with suppress(ConnectionError):
            while piece := one.recv(1 << 20):
                got += len(piece)
        assert got < size
    with answering(after=0.3, size=size) as url:
        assert len(httpx.get(url, timeout=60).content) == size
