"""BandQueue: hands bands of pixels from the event loop to the codec thread that encodes the answer.

server/core/pipeline.py calls `put` and `end` on the event loop, the encoder calls `take` on its thread. The queue provides
backpressure: `put` waits until the thread asks for a band, so a slow disk or codec slows down the device instead of
filling the memory.
"""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from runtime.errors import Cancelled
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array


class BandQueue:
    """A queue with room for one band. Make it on the event loop.

    stopwatch: the request's; the time in which the writer waits for a band is not counted as encoding.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Semaphore(0)
        self._bands: queue.SimpleQueue[Array | None] = queue.SimpleQueue()

    async def put(self, band: Array, writing: asyncio.Future[None]) -> None:
        """Wait until the writing thread asks for a band, and hand it over.

        writing: the future of the writing thread; if it has failed, its exception is raised.
        """
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
        """Wait for the next band. Call it on the writing thread. Raises Cancelled after `end`."""
        self._loop.call_soon_threadsafe(self._wanted.release)
        self._stopwatch.end("encode")
        band = self._bands.get()
        self._stopwatch.begin("encode")
        if band is None:
            raise Cancelled("the request has ended")
        return band

    def end(self) -> None:
        """Stop a thread that waits for a further band."""
        self._bands.put(None)
