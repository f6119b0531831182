"""Ends connections to a server of ours that ask for nothing, or read no answer, so that they keep nobody out. Answers no
request."""

from __future__ import annotations

import threading
import time
from typing import Any

SILENT = (
    30.0  # seconds for all of a request but its body, and without reading any more of an answer
)
LOOK_EVERY = 1.0  # seconds


def end_silent(server: Any, *, after: float = SILENT, look_every: float = LOOK_EVERY) -> None:
    """Watches a uvicorn server, from a thread of its own, until it exits.

    uvicorn itself ends those that stay silent after an answer; it waits without end for a first request, for the rest of
    one that has begun, and for an answer to be read.

    Args:
        server: a `uvicorn.Server`, running or about to.
        after: seconds after which a connection is closed that has no whole request, or of whose answer nothing was read.
        look_every: seconds between two looks.
    """

    def watch() -> None:
        since: dict[tuple[int, int, int], float] = {}
        while not server.should_exit:
            now = time.monotonic()
            waiting = {}
            for one in list(server.server_state.connections):
                unread = one.transport.get_write_buffer_size()
                if unread or one.cycle is None or one.cycle.response_complete:
                    waiting[id(one), id(one.cycle), unread] = one
            since = {key: since.get(key, now) for key in waiting}
            for key, one in waiting.items():
                if now - since[key] > after:
                    # `close` would wait until all is read
                    end = one.transport.abort if key[2] else one.transport.close
                    one.loop.call_soon_threadsafe(end)
            time.sleep(look_every)

    threading.Thread(target=watch, daemon=True).start()
