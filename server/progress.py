"""How far a request is, told from the device's threads to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Progress:
    """The newest (done, total), from any thread to one reader on the event loop; older ones are skipped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._newest: tuple[int, int] | None = None
        self._ended = False

    def tell(self, done: int, total: int) -> None:
        self._loop.call_soon_threadsafe(self._set, (done, total))

    def end(self) -> None:
        """No more will come. On the event loop's thread."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, int]]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._newest is not None:
                newest, self._newest = self._newest, None
                yield newest
            if self._ended:
                return

    def _set(self, newest: tuple[int, int]) -> None:
        self._newest = newest
        self._changed.set()
