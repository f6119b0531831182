"""Answers of a reward server that never end, swell, or send elsewhere: each ends in one line, in bounded time and memory."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from remote_rewards import CLIENT, eight_bit
from toys import PROMPTS

from t2i_credit.errors import TrainingError
from t2i_credit.rewards.remote import remote


@contextmanager
def saying(head: str, parts: Iterator[bytes], *, ended: bool = True) -> Iterator[str]:
    """The address of a server that begins every answer with `head` and goes on with `parts`, for as long as anybody reads."""
    first = "HTTP/1.1 " + head.replace("\n", "\r\n")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    visitor, _ = server.accept()
                    with visitor, suppress(OSError):
                        visitor.recv(1 << 20)
                        visitor.sendall((first + "\r\n\r\n" * ended).encode())
                        for part in parts:
                            visitor.sendall(part)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(url: str, **more: float) -> str:
    with pytest.raises(TrainingError) as caught:
        remote(url=url, retries=0, **more)(eight_bit(1), PROMPTS[:1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def drips() -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield b" "


def swells() -> Iterator[bytes]:
    while True:
        yield b" " * (1 << 20)


def test_an_answer_that_drips_without_end_is_given_up() -> None:
    began = time.monotonic()
    with saying("200 OK\nContent-Type: application/json", drips()) as url:
        assert "no whole answer in 1 s" in refused(url, timeout=0.1)
    assert time.monotonic() - began < 60  # and not for ever


def test_a_head_that_drips_without_end_is_given_up() -> None:
    with saying("200 OK\nX-Slow: ", drips(), ended=False) as url:
        assert "stays away" in refused(url, timeout=0.1)


def test_an_answer_without_end_is_not_kept() -> None:
    with saying("200 OK\nContent-Type: application/json", swells()) as url:
        assert f"an answer of more than {CLIENT.MOST_BYTES >> 20} MiB" in refused(url)


def test_a_packed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b" " * (64 << 20))
    assert len(packed) < 100_000
    head = f"200 OK\nContent-Encoding: gzip\nContent-Length: {len(packed)}"
    with saying(head, iter([packed])) as url:
        assert "an answer in 'gzip', which was not asked for" in refused(url)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_an_address_that_sends_elsewhere_says_what_to_do(status: int) -> None:
    head = f"{status} Moved\nLocation: http://127.0.0.1:1/\nContent-Length: 0"
    with saying(head, iter([])) as url:
        assert "it sends elsewhere; give that address as url" in refused(url)
