"""Logins, one after the other for every address, so that guessing takes time and is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# seconds before the next try of a login that failed; doubled after each
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
ADDRESSES = 1000  # whose failed logins are remembered


class Logins:
    """Logins one after the other for every address, with a pause before each that grows with those that failed.

    Args:
        say: called with a line about each that failed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._failed: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def tried(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a login on, and remembers how it ended."""
        address = str((scope.get("client") or ("unknown",))[0])
        address = address if address.isprintable() else repr(address)
        async with self._turns.setdefault(address, asyncio.Lock()):
            if failed := self._failed.get(address, 0):
                await asyncio.sleep(min(FIRST_PAUSE * 2 ** min(failed - 1, 10), LONGEST_PAUSE))
            status = 0

            async def sent(message: MutableMapping[str, Any]) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            await app(scope, receive, sent)
            if status == 200:
                self._failed.pop(address, None)
                return
            self._failed[address] = failed + 1
            self.say(f"login refused: {failed + 1} in a row from {address}")
        while len(self._failed) > ADDRESSES:  # the oldest first
            gone = next(iter(self._failed))
            del self._failed[gone]
            self._turns.pop(gone, None)
