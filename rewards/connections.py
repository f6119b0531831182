"""Ends connections to a server of ours that ask for nothing, so that they keep nobody out. Answers no request."""

from __future__ import annotations

import threading
import time
from typing import Any

SILENT = 30.0  # seconds that a connection may take to say all of a request but its body
LOOK_EVERY = 1.0  # seconds


def end_silent(server: Any, *, after: float = SILENT, look_every: float = LOOK_EVERY) -> None:
    """Watches a uvicorn server, from a thread of its own, until it exits.

    uvicorn itself ends those that stay silent after an answer; it waits without end for a first request, and for the rest of
    one that has begun.

    Args:
        server: a `uvicorn.Server`, running or about to.
        after: seconds after which a connection without a whole request is closed.
        look_every: seconds between two looks.
    """

    def watch() -> None:
        since: dict[tuple[int, int], float] = {}
        while not server.should_exit:
            now = time.monotonic()
            waiting = {
                (id(one), id(one.cycle)): one
                for one in list(server.server_state.connections)
                if one.cycle is None or one.cycle.response_complete
            }
            since = {key: since.get(key, now) for key in waiting}
            for key, one in waiting.items():
                if now - since[key] > after:
                    one.loop.call_soon_threadsafe(one.transport.close)
            time.sleep(look_every)

    threading.Thread(target=watch, daemon=True).start()
