"""Stop: tells codec functions that run on other threads to end, because the call they work for has ended.

server/core/calls.py makes one for each call. Decoding and encoding ask it between pieces of work with `check`, and register what
interrupts a library with `on_stop`; server/core/codec_threads.py calls `stop` when a call ends early.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.errors import Cancelled


class Stop:
    """Thread-safe. Nothing that was stopped goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._interrupts: list[Callable[[], object]] = []

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the work. Returns at once; the work ends soon after."""
        with self._lock:
            self._stopped = True
            for interrupt in self._interrupts:
                interrupt()

    def check(self) -> None:
        """Raises Cancelled if the work is to end."""
        if self._stopped:
            raise Cancelled("the request has ended")

    @contextmanager
    def on_stop(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Context manager: `stop` calls `interrupt`, from its own thread, as long as the block runs. Raises Cancelled."""
        with self._lock:
            self.check()
            self._interrupts.append(interrupt)
        try:
            yield
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)


def never() -> Stop:
    """For work that nobody stops: builds, tests, small pictures."""
    return Stop()
