"""The open engines of a server: what memory they take, room for one more, and one scheduler for each device.

server/models/models.py opens and closes engines through an `Engines` and decides which.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BundleError, Cancelled, Overloaded
from runtime.scheduler import Scheduler
from server.background import in_background
from server.logs import log
from server.machine import allocator
from server.models import memory
from server.models.entry import Entry, Model
from server.models.opening import check_channels

# Opens a bundle: server/models/opening.py with the operator's backend, device and precision.
OpenBundle = Callable[[Bundle], tuple[Engine, str]]
RETRY_AFTER_S = 5.0


@dataclass(frozen=True)
class EnginesStats:
    """Counts for metrics. open, bytes (estimated): now. opened, closed: since the start."""

    open: int
    bytes: int
    opened: int
    closed: int


class Engines:
    """The open engines of one server. Thread-safe. changed: guards the fields of entries; notified when they change.

    max_bytes: limit on their estimated memory; None for none. available_bytes: how much the process may still take.
    """

    def __init__(
        self,
        open_bundle: OpenBundle,
        *,
        max_bytes: int | None = None,
        available_bytes: Callable[[], int | None] = memory.available_bytes,
    ) -> None:
        self._open_bundle, self._available_bytes = open_bundle, available_bytes
        self.max_bytes = max_bytes
        # By device. Replaced and never changed, so that it may be read from any thread.
        self.schedulers: Mapping[str, Scheduler] = {}
        self._lock = threading.Lock()
        self.changed = threading.Condition()
        self._closing = 0
        self._bytes: dict[Engine, int] = {}
        self._opened = 0
        self._closed = False

    @property
    def used_bytes(self) -> int:
        """Estimated memory of the open engines."""
        with self._lock:
            return sum(self._bytes.values())

    def check(self, bundle: Bundle) -> None:
        """Raises BundleError if the bundle could never be served here, even alone."""
        check_channels(bundle.manifest)
        needs = memory.bytes_to_open(bundle)
        if self.max_bytes is not None and needs > self.max_bytes:
            raise BundleError(
                f"{bundle.manifest.name} needs about {_mib(needs)} of memory, "
                f"--max-models-bytes allows {_mib(self.max_bytes)} for all models"
            )

    def over_budget(self, bundle: Bundle) -> Overloaded | None:
        """Why the budget has no room for this bundle's engine beside those that are open; None if it has."""
        name, needs = bundle.manifest.name, memory.bytes_to_open(bundle)
        if self.max_bytes is not None and self.used_bytes + needs > self.max_bytes:
            return Overloaded(
                f"{name} needs about {_mib(needs)} beside {_mib(self.used_bytes)} of open models, "
                f"--max-models-bytes allows {_mib(self.max_bytes)}",
                retry_after_s=RETRY_AFTER_S,
                reason="models",
            )
        return None

    def no_room(self, bundle: Bundle) -> Overloaded | None:
        """Why budget or memory has no room for this bundle's engine beside those that are open; None if they have."""
        if (problem := self.over_budget(bundle)) is not None:
            return problem
        name, needs = bundle.manifest.name, memory.bytes_to_open(bundle)
        available = self._available_bytes()
        if available is not None and needs + memory.RESERVE_BYTES > available:
            return Overloaded(
                f"{name} needs about {_mib(needs)} and {_mib(memory.RESERVE_BYTES)} in reserve, this process may take "
                f"{_mib(available)} more; give it more memory, remove a model or serve with --lazy",
                retry_after_s=RETRY_AFTER_S,
                reason="memory",
            )
        return None

    def open(self, bundle: Bundle) -> tuple[Model, str]:
        """Load and warm up a bundle. Returns its model and why this engine was chosen. Takes seconds or minutes.

        Raises BundleError, BackendUnavailable or EngineError if it cannot be served here, Cancelled after `close_all`.
        """
        engine, reason = self._open_bundle(bundle)
        try:
            return self.adopt(engine), reason
        except Cancelled:
            engine.close()
            raise

    def adopt(self, engine: Engine) -> Model:
        """The model of a warm engine, which is closed with the others. Raises Cancelled after `close_all`."""
        with self._lock:
            if self._closed:
                raise Cancelled("the server is shutting down")
            self._opened += 1
            self._bytes[engine] = memory.bytes_to_open(engine.bundle)
            scheduler = self.schedulers.get(engine.device)
            if scheduler is None:
                scheduler = Scheduler(slots=engine.slots_by_device)
                self.schedulers = {**self.schedulers, engine.device: scheduler}
        scheduler.grow(engine.slots_by_device)
        if engine.warm_seconds_per_px is not None:
            scheduler.expect(engine, engine.warm_seconds_per_px)
        return Model(engine, scheduler)

    def make_room(
        self, bundle: Bundle, closable: Callable[[], Sequence[Entry]], *, waiting: Entry | None = None
    ) -> None:
        """Close models that nothing runs on, the least recently used first, until there is room for one more.

        closable: the entries whose models may be closed. waiting: wait for room as long as requests wait for this entry;
        None: do not wait.
        Raises Overloaded if there is no room, Cancelled if nobody waits any more.
        """
        while True:
            with self.changed:
                problem = self.no_room(bundle)
                if problem is None:
                    return
                victims = [entry for entry in closable() if entry.model is not None]
                victim = min(victims, key=lambda entry: (entry.is_running, entry.last_use), default=None)
                if victim is None or victim.is_running:
                    if waiting is not None and not waiting.uses:
                        waiting.opening = None
                        raise Cancelled(f"{waiting.name}: nobody waits for it any more")
                    if not self._closing and (waiting is None or problem.reason == "memory"):
                        raise problem
                    if victim is not None and waiting is not None:
                        victim.leaving = True  # or it would never be free under a steady load
                    self.changed.wait()
                    continue
                model, victim.model, victim.leaving = victim.model, None, False
                self._closing += 1
            log.info("model closed", model=victim.name, reason="others need its memory")
            self._close(model)

    def close_retired(self, entry: Entry) -> None:
        """Close the model of an entry that was replaced or removed, once nobody uses it."""
        with self.changed:
            if not entry.retired or entry.uses or entry.model is None:
                return
            model, entry.model = entry.model, None
            self._closing += 1
        in_background(f"close {entry.name}", self._close, model)

    def _close(self, model: Model | None) -> None:
        """Wait until nothing of the model runs, close its engine and give its memory back. It must have no users."""
        assert model is not None
        try:
            model.scheduler.drain(model.engine)
            model.engine.close()
            with self._lock:
                self._bytes.pop(model.engine, None)
            allocator.trim()
        finally:
            with self.changed:
                self._closing -= 1
                self.changed.notify_all()

    def stats(self) -> EnginesStats:
        """The counts so far."""
        with self._lock:
            return EnginesStats(
                open=len(self._bytes),
                bytes=sum(self._bytes.values()),
                opened=self._opened,
                closed=self._opened - len(self._bytes),
            )

    def close_all(self) -> None:
        """Cancel the waiting jobs, finish the running batches and close every engine."""
        with self._lock:
            self._closed = True
            engines = list(self._bytes)
        for scheduler in self.schedulers.values():
            scheduler.close()
        for engine in engines:
            engine.close()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
