"""Keeps the models of a running server as the folder of bundles: on SIGHUP, and with --watch at every change.

server/__main__.py starts a Following once the models are warm. Before that, and after it, SIGHUP does nothing.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

from runtime.errors import BundleError
from server.background import in_background
from server.health import MODEL, Health
from server.logs import log
from server.models.models import Models
from server.models.reloading import Reloader, Watch


class Following:
    """Reloads the models of a server, from now to `close`. Made on the event loop.

    health: is told which models there are. watch: reload at every change of the folder.
    """

    def __init__(self, models: Models, folder: Path, health: Health, *, watch: bool) -> None:
        self._models, self._health, self._loop = models, health, asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._reporting = threading.Lock()
        self._reported: set[str] = set()
        self.report()
        self.reloader = Reloader(models, folder, on_change=self._on_change)
        self._watch = Watch(self.reloader) if watch else None
        if self._watch is not None:
            self._watch.start()
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    async def until_first_model(self, stopping: asyncio.Event) -> None:
        """Wait until there is a model, or `stopping` is set: with --watch, the folder may be empty at first."""
        if self._models.catalog.entries:
            return
        log.info("waiting for the first bundle")
        waits = [asyncio.create_task(event.wait()) for event in (stopping, self._changed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()

    def close(self) -> None:
        """Stop. Does not wait for a reload that is under way."""
        ignore_hang_ups(self._loop)
        self.reloader.close()
        if self._watch is not None:
            self._watch.close()

    def _on_change(self) -> None:
        """Called on the reloading thread."""
        self.report()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def report(self) -> None:
        """Tell health checks which models there are and work. A server without any is not healthy. From any thread."""
        with self._reporting:
            self._report()

    def _report(self) -> None:
        parts = {f"{MODEL}{name}": entry for name, entry in self._models.catalog.entries.items()}
        for part in self._reported - parts.keys():
            self._health.forget(part)
        for part, entry in parts.items():
            reason = entry.model.unavailable if entry.model is not None else None
            self._health.report(part, entry.state != "unavailable", reason or "loaded")
        if not parts:
            self._health.report(MODEL, False, "no model is served")
        self._reported = set(parts) or {MODEL}

    def _hang_up(self) -> None:
        in_background("reload", self._reload)

    def _reload(self) -> None:
        try:
            done = self.reloader.reload()
        except BundleError as error:
            log.error("not reloaded", reason=str(error))
        else:
            log.info("reloaded", **done.counts())


def ignore_hang_ups(loop: asyncio.AbstractEventLoop) -> None:
    """Do nothing on SIGHUP, which would end the process otherwise."""
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
