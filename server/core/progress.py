"""LatestProgress: passes a request's progress from the scheduler's threads to the event loop.

server/core/images.py makes one for each streamed request and iterates over it to report the progress to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from server.core.requests import Progress


class LatestProgress:
    """An asynchronous iterator over progress updates, for one reader. A slow reader gets only the latest one.

    Make it on the event loop, which is woken once for all updates since the last, not once per tile.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._latest: Progress | None = None
        self._wakes = False  # a wake-up is on its way
        self._ended = False

    def update(self, progress: Progress) -> None:
        """Report progress. Callable from any thread, but not from two at the same time."""
        self._latest = progress
        if not self._wakes:
            self._wakes = True
            self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """End the iteration. Call it on the event loop."""
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
