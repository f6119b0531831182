"""Many logins at once: a few wait, others are told to come back, and who has left takes no turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from t2i_credit.app import guard, logins


class Guesser:
    """A login that is sent, and what was answered."""

    def __init__(self, door: guard.Doorman, word: bytes, address: str = "10.0.0.1") -> None:
        self.words, self.left = [word], asyncio.Event()
        self.answers: list[Any] = []
        client, headers = (address, 1), [(b"content-length", str(len(word)).encode())]
        scope = {"type": "http", "method": "POST", "path": "/login", "headers": headers}
        self.task = asyncio.ensure_future(
            door({**scope, "client": client}, self.receive, self.send)
        )

    async def receive(self) -> dict[str, Any]:
        if self.words:
            return {"type": "http.request", "body": self.words.pop(), "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.answers.append(message)

    @property
    def status(self) -> int | None:
        return self.answers[0]["status"] if self.answers else None


def door(ended: list[bool], told: list[str]) -> guard.Doorman:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        right = b"right" in (await receive())["body"]
        await guard._answer(send, 200 if right else 400, b"")

    known = {"known": lambda scope: False, "say": told.append}
    return guard.Doorman(app, **known, ended=lambda: bool(ended))


async def turned_away(guessers: list[Guesser], count: int) -> list[Guesser]:
    """Those with the answer 429, when there are so many."""
    async with asyncio.timeout(20):
        while len(found := [one for one in guessers if one.status == 429]) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert sum(one.status == 429 for one in guessers) == count
    return found


def test_a_flood_of_logins_waits_in_a_short_line_which_is_empty_once_it_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logins, "LOOK_EVERY", 0.01)

    async def flood() -> None:
        told: list[str] = []
        before = door([], told)
        first = Guesser(before, b"wrong")
        await first.task
        guessers = [Guesser(before, b"wrong") for _ in range(500)]
        refused = await turned_away(guessers, 500 - logins.WAITING_EACH)
        assert dict(refused[0].answers[0]["headers"])[b"retry-after"] == b"1"
        elsewhere = Guesser(before, b"right", "10.0.0.2")
        await elsewhere.task
        assert elsewhere.status == 200  # its line is its own
        for one in guessers:
            one.left.set()
        await asyncio.wait([one.task for one in guessers], timeout=5)
        assert len(told) == 1  # of those who left nobody took a turn
        right = Guesser(before, b"right")
        await asyncio.wait_for(right.task, 5)
        assert right.status == 200

    asyncio.run(flood())


def test_all_addresses_together_have_a_longest_line() -> None:
    async def flood() -> None:
        before = door([], [])
        addresses = [f"10.0.0.{n}" for n in range(20)]
        for address in addresses:
            await Guesser(before, b"wrong", address).task
        guessers = [Guesser(before, b"wrong", a) for a in addresses for _ in range(8)]
        await turned_away(guessers, 160 - logins.WAITING)
        for one in guessers:
            one.task.cancel()

    asyncio.run(flood())


def test_who_waits_is_sent_away_when_the_server_ends() -> None:
    async def end() -> None:
        ended: list[bool] = []
        before = door(ended, [])
        await Guesser(before, b"wrong").task
        waiting = [Guesser(before, b"wrong") for _ in range(3)]
        await asyncio.sleep(0.05)
        ended.append(True)
        await asyncio.wait_for(asyncio.gather(*[one.task for one in waiting]), 5)
        assert [one.status for one in waiting] == [503] * 3

    asyncio.run(end())
