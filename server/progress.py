"""Progress of a request, from the device's threads to the event loop, which reports it to the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from server.requests import Progress


class LatestProgress:
    """The latest progress, from any thread to one reader on the event loop; a slow reader misses older ones.

    The event loop is woken once for all updates since it last looked, not once a tile.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._latest: Progress | None = None
        self._wakes = False  # a wake-up is on its way
        self._ended = False

    def update(self, progress: Progress) -> None:
        """From any thread, one at a time."""
        self._latest = progress
        if not self._wakes:
            self._wakes = True
            self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """No more will come. On the event loop's thread."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Progress]:
        seen: Progress | None = None
        while True:
            latest = self._latest  # never cleared: an update from another thread could be lost in between
            if latest is not None and latest is not seen:
                seen = latest
                yield latest
            elif self._ended:
                return
            else:
                await self._changed.wait()
                self._changed.clear()

    def _wake(self) -> None:
        self._wakes = False  # before the reader looks, so that no later update is missed
        self._changed.set()
