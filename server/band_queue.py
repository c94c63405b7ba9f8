"""A queue of bands, from the event loop to the thread that writes an answer's file.

server/pipeline.py puts the finished bands in, the codec thread takes them out. It holds one band at most: the next
is accepted when the thread asks for it, so a slow disk or codec holds back the device and no memory piles up.
"""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from runtime.errors import Cancelled
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array


class BandQueue:
    """Made on the event loop. stopwatch: the request's; a writer that waits for a band does no codec work."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Semaphore(0)
        self._bands: queue.SimpleQueue[Array | None] = queue.SimpleQueue()

    async def put(self, band: Array, writing: asyncio.Future[None]) -> None:
        """Wait until the thread asks for a band, and hand it over. Raises what ended the writing, if it has ended."""
        wanted: asyncio.Future[Any] = asyncio.ensure_future(self._wanted.acquire())
        either: set[asyncio.Future[Any]] = {wanted, writing}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
        if writing.done():
            await writing
        self._bands.put(band)

    def take(self) -> Array:
        """The next band, on the writing thread. Raises Cancelled once there will be none."""
        self._loop.call_soon_threadsafe(self._wanted.release)
        self._stopwatch.end("codec")
        band = self._bands.get()
        self._stopwatch.begin("codec")
        if band is None:
            raise Cancelled("the request has ended")
        return band

    def end(self) -> None:
        """No further band will come: a thread that waits for one stops."""
        self._bands.put(None)
