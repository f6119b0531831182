"""Logins, one after the other for every address, so that guessing takes time and is told of."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .asgi import Receive, Scope, Send

# seconds before the next try of a login that failed; doubled after each
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
ADDRESSES = 1000  # whose failed logins are remembered
WAITING_EACH, WAITING = 8, 64  # logins that wait at a time: of one address, of all
LOOK_EVERY = 0.25  # seconds between two looks at who is still there
MOST_BYTES = 4096  # of a login


class Logins:
    """Logins one after the other for every address, with a pause before each that grows with those that failed.

    Args:
        say: called with a line about each that failed.
        answer: sends an answer: send, status, body, kind, headers.
        ended: whether the server is being closed; who waits then is sent away.
    """

    def __init__(
        self, say: Callable[[str], None], answer: Callable[..., Any], ended: Callable[[], bool]
    ) -> None:
        self.say, self.answer, self.ended = say, answer, ended
        self._failed: dict[str, int] = {}
        self._queues: dict[str, list[object]] = {}

    async def tried(
        self, app: Callable[[Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Passes a login on when its turn comes, and remembers how it ended.

        Args:
            app: what answers the login, of which the body is read already.
            receive: tells of nothing more than that the visitor is gone.
        """
        address = str((scope.get("client") or ("unknown",))[0])
        address = address if address.isprintable() else repr(address)
        queue = self._queues.get(address, [])
        waiting = sum(map(len, self._queues.values()))
        if len(queue) >= WAITING_EACH or waiting >= WAITING:
            after = str(math.ceil(max(1.0, self._pause(address)))).encode()
            more = [(b"retry-after", after), (b"cache-control", b"no-store")]
            told = b"Too many logins wait; come back later.\n"
            return await self.answer(send, 429, told, more=more)
        place = object()
        self._queues[address] = queue
        queue.append(place)
        gone = asyncio.ensure_future(receive())
        try:
            if not await self._turn(address, queue, place, gone):
                if not gone.done():
                    await self.answer(send, 503, b"The server is being closed.\n")
                return None
            await self._passed(app, address, send)
        finally:
            gone.cancel()
            queue.remove(place)
            if not queue:
                del self._queues[address]

    def _pause(self, address: str) -> float:
        failed = self._failed.get(address, 0)
        return min(FIRST_PAUSE * 2 ** min(failed - 1, 10), LONGEST_PAUSE) if failed else 0.0

    async def _turn(
        self, address: str, queue: list[object], place: object, gone: asyncio.Future[Any]
    ) -> bool:
        """Waits until this login is the first of its address, and its pause over; False where it is of no use any more."""
        waited = 0.0
        while True:
            if gone.done() or self.ended():
                return False
            slice_ = LOOK_EVERY
            if queue[0] is place:
                if (left := self._pause(address) - waited) <= 0:
                    return True
                slice_ = min(LOOK_EVERY, left)
                waited += slice_
            await asyncio.sleep(slice_)

    async def _passed(
        self, app: Callable[[Send], Awaitable[None]], address: str, send: Send
    ) -> None:
        status = 0

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await app(sent)
        if status == 200:
            self._failed.pop(address, None)
            return
        failed = self._failed.get(address, 0) + 1
        self._failed[address] = failed
        self.say(f"login refused: {failed} in a row from {address}")
        while len(self._failed) > ADDRESSES:  # the oldest first
            del self._failed[next(iter(self._failed))]
