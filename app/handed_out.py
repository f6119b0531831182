"""What the server hands out of the runs beside the page: an evaluation's own page, and files to keep. Few at a time, so that no
visitor's file costs the others more than a moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from ..errors import UserError, one_line, shortened
from .asgi import Receive, Send

if TYPE_CHECKING:
    from .exports import Export

MOST_FILES = 2  # made or sent at a time
WAIT_SECONDS = 5.0  # for one of these places
LEAST_SPEED, START_SECONDS = 1 << 16, 60.0  # bytes a second of who keeps a place, after so long
PIECE = 1 << 16  # bytes of a file that wait for a visitor who does not read
BUSY = b"Files are being handed out to others: try again in a moment.\n"
# a report's own script and pictures, nothing from elsewhere, no origin
APART = (
    b"content-security-policy",
    b"sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
)


class HandedOut:
    """Serves what guard.py lets through.

    Args:
        report: (run, evaluation) to the page of that evaluation, by their names; raises UserError or OSError where there is
            none. None = no page is served.
        export: (kind, what was asked for) to a file of a run (exports.py); raises as `report` does. None = none is.
        answer: (send, status, body, MIME type, headers) answers at once.
    """

    def __init__(
        self,
        report: Callable[[str, str], bytes] | None,
        export: Callable[[str, dict[str, str]], Export] | None,
        answer: Callable[..., Awaitable[None]],
    ) -> None:
        self._report, self._export, self._answer = report, export, answer
        # each file may take memory and disk; a page waits for no file
        self._reading, self._making = asyncio.Semaphore(1), asyncio.Semaphore(MOST_FILES)

    async def serve(self, kind: str, asked: dict[str, str], receive: Receive, send: Send) -> bool:
        """Answers, if it is served at all."""
        if kind == "report" and self._report is not None:
            await self._page_of_report(self._report, asked, send)
        elif kind != "report" and self._export is not None:
            await self._file(self._export, kind, asked, receive, send)
        else:
            return False
        return True

    async def _page_of_report(
        self, report: Callable[[str, str], bytes], asked: dict[str, str], send: Send
    ) -> None:
        """A run may come from elsewhere, and its page with it: it is shown apart from this app, as of no origin, and
        reaches nothing."""
        names = [asked.get(name, "") for name in ("run", "evaluation")]
        try:
            async with _place(self._reading):
                page = await asyncio.to_thread(report, names[0], names[1])
        except TimeoutError:
            return await self._answer(send, 503, BUSY)
        except (UserError, OSError):
            return await self._answer(send, 404, b"There is no such report.\n")
        await self._answer(send, 200, page, "text/html", [APART, (b"cache-control", b"no-store")])

    async def _file(
        self,
        export: Callable[[str, dict[str, str]], Export],
        kind: str,
        asked: dict[str, str],
        receive: Receive,
        send: Send,
    ) -> None:
        """A file to keep, piece by piece; few are made or sent at a time, and whoever has left, or hardly reads, keeps no place."""
        try:
            async with _place(self._making):
                try:
                    name, mime, file = await asyncio.to_thread(export, kind, asked)
                except (UserError, OSError) as error:
                    said = f"This cannot be handed out: {shortened(one_line(error))}\n"
                    return await self._answer(send, 404, said.encode())
                except Exception as error:
                    logging.getLogger(__name__).exception("%s", kind)
                    said = f"This cannot be handed out: unexpected {type(error).__name__}\n"
                    return await self._answer(send, 500, said.encode())
                gone = asyncio.ensure_future(_gone(receive))
                try:
                    with file:
                        await _sent(name, mime, file, gone, send)
                finally:
                    gone.cancel()
        except TimeoutError:
            return await self._answer(send, 503, BUSY)


@asynccontextmanager
async def _place(places: asyncio.Semaphore) -> AsyncIterator[None]:
    """One of few places; TimeoutError where none comes free soon."""
    await asyncio.wait_for(places.acquire(), WAIT_SECONDS)
    try:
        yield
    finally:
        places.release()


async def _gone(receive: Receive) -> None:
    """Waits until the visitor has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _sent(
    name: str, mime: str, file: IO[bytes], gone: asyncio.Future[None], send: Send
) -> None:
    """A whole file, as long as there is somebody who reads it."""
    size = file.seek(0, 2)
    file.seek(0)
    headers = [
        (b"content-type", mime.encode()),
        (b"content-length", str(size).encode()),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(name)}".encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    began = time.monotonic()
    while piece := file.read(PIECE):
        await asyncio.sleep(0)  # the others have their turn, however fast this one reads
        late = time.monotonic() - began - START_SECONDS - file.tell() / LEAST_SPEED
        if gone.done() or late > 0:
            return
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
