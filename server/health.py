"""What of a server works: as a whole and part by part ("disk", a model). Any part of the core reports here.

`Service.health` is the one of a server. server/grpc_front/health_front.py answers grpc.health.v1 with it; another
front would answer its own protocol's questions. Each change is logged once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.logs import log

MODEL = "model/"


class Health:
    """The state of a server and of its parts. All methods may be called from any thread.

    The server as a whole is healthy from `ready` to `drain`, as long as not every part called "model/…" is unhealthy: a
    full disk, or one of several models, is no reason to send callers elsewhere. A part is healthy only if the server is
    between `ready` and `drain`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving = False
        self.drained = False
        self._parts: dict[str, bool] = {}
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def ready(self) -> None:
        """From now on the server serves. No effect after `drain`."""
        self._serving = not self.drained
        self._tell()

    def drain(self) -> None:
        """From now on, and for good, the server takes no new calls."""
        self.drained, self._serving = True, False
        self._tell()

    def report(self, name: str, healthy: bool, reason: str = "") -> None:
        """Say whether a part works. name: "disk", "model/esrgan-x4", … reason: a sentence for the log."""
        with self._lock:
            changed = self._parts.get(name, True) != healthy
            self._parts[name] = healthy
        if changed:
            (log.info if healthy else log.warning)("health", part=name, healthy=healthy, reason=reason)
        self._tell()

    def forget(self, name: str) -> None:
        """Forget a part that is gone, such as a model that was removed."""
        with self._lock:
            self._parts.pop(name, None)
        self._tell()

    def healthy(self, name: str = "") -> bool | None:
        """Whether a part works, or the whole server if `name` is empty. None for a part that never reported."""
        with self._lock:
            if name:
                return self._serving and self._parts[name] if name in self._parts else None
            models = [works for part, works in self._parts.items() if part.startswith(MODEL)]
        return self._serving and (any(models) or not models)

    def parts(self) -> dict[str, bool]:
        """Whether each part that reported works, by name."""
        with self._lock:
            return dict(self._parts)

    @contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """Context manager with an event, of the running loop, that is set after every change; the caller clears it."""
        watcher = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._watchers.add(watcher)
        try:
            yield watcher[1]
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def _tell(self) -> None:
        with self._lock:
            watchers = tuple(self._watchers)
        for loop, event in watchers:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)
