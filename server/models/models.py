"""The models of a server, which come and go while it serves. server/core/shared.py takes the model of each request from here.

A request uses an entry of the catalog from the moment it finds it until it is computed. `add` and `remove` swap the
catalog: later requests find the new entry, and the old one is closed after its last user. server/models/reloading.py calls them.
With `lazy`, an entry's model is opened for the first request that needs it, and the one that was not used for the longest
time is closed where --max-models-bytes or the memory leaves no room.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from runtime import bundle as bundles_on_disk
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BundleError, Cancelled, Overloaded
from runtime.healing import Event
from runtime.scheduler import Scheduler
from runtime.signing import Trust
from runtime.stopwatch import Stopwatch
from runtime.tensors import Precision, TaskName
from server.background import in_background
from server.logs import log
from server.models import memory
from server.models.catalog import Catalog, check_defaults
from server.models.engine_events import log_event
from server.models.engines import Engines, EnginesStats, OpenBundle
from server.models.entry import Entry, Model, Use
from server.models.opening import open_warm

__all__ = ["Model", "Models"]

# A model that could not be opened is not tried again for a while: each try may take seconds of all cores.
RETRY_OPENING_S = 10.0
# How long the end of the server waits for a model that is being opened.
CLOSE_WAIT_S = 5.0


class Models:
    """All models of a server; iterates over the open ones, sorted by name. Models on the same device share its scheduler.

    engines: warm ones. defaults: for each task, the model for requests that name none. The default of a task that is not
    listed is its only model, else the first of catalog.SHIPPED; otherwise it has none, and requests must name a model.
    expect_more: models may be added later, so a default need not be served yet. open_bundle: opens an engine.
    lazy, max_bytes: see the module. available_bytes: how much memory the process may still take, None if unknown.
    trust: as for `runtime.bundle.load`, of bundles that are read later.
    Raises ModelNotFound if a default is not served or has another task.
    """

    def __init__(
        self,
        engines: Sequence[Engine] = (),
        defaults: Mapping[TaskName, str] | None = None,
        *,
        expect_more: bool = False,
        open_bundle: OpenBundle = open_warm,
        lazy: bool = False,
        max_bytes: int | None = None,
        available_bytes: Callable[[], int | None] = memory.available_bytes,
        trust: Trust | None = None,
    ) -> None:
        self._trust = trust
        self._named = defaults or {}
        if not expect_more:
            check_defaults([engine.manifest for engine in engines], self._named)
        self._lazy = lazy
        self._engines = Engines(open_bundle, max_bytes=max_bytes, available_bytes=available_bytes)
        self._changed = self._engines.changed
        self._one_at_a_time = threading.Lock()  # held while a model is opened
        self._uses = 0
        self.catalog = Catalog()
        for engine in engines:
            entry = Entry(engine.bundle)
            entry.opened(self._engines.adopt(engine))
            self._swap(entry.name, entry)

    @classmethod
    def open(
        cls,
        bundles: Sequence[Bundle],
        *,
        defaults: Mapping[TaskName, str] | None = None,
        expect_more: bool = False,
        backend: str = "auto",
        device: str | None = None,
        min_precision: Precision | None = None,
        lazy: bool = False,
        max_bytes: int | None = None,
        trust: Trust | None = None,
        on_warm: Callable[[str], None] = lambda sentence: None,
        on_event: Callable[[Event], None] = log_event,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Load and warm up every bundle; with `lazy` only check them.

        backend, device, min_precision: as for `runtime.backends.open_engine`, also of models that are opened later.
        trust: for `load`. on_event: as for `open_warm`.
        on_warm: called for each warm model with a sentence that says which backend runs it and why. stopping: checked
        before each bundle.
        Raises BundleError, BackendUnavailable or EngineError if a bundle cannot be served here, ModelNotFound for wrong
        defaults, and Cancelled if `stopping` returns true before all are warm.
        """
        if not expect_more:
            check_defaults([bundle.manifest for bundle in bundles], defaults or {})  # before the slow part
        open_bundle = partial(
            open_warm, backend=backend, device=device, min_precision=min_precision, on_event=on_event
        )
        models = cls(
            (),
            defaults,
            expect_more=True,
            open_bundle=open_bundle,
            lazy=lazy,
            max_bytes=max_bytes,
            trust=trust,
        )
        try:
            for bundle in bundles:
                if stopping():
                    raise Cancelled("stopped while the models were warming up")
                models._add_first(bundle, on_warm)
        except BaseException:
            models.close()
            raise
        return models

    def __iter__(self) -> Iterator[Model]:
        return iter([entry.model for entry in self.catalog.entries.values() if entry.model is not None])

    @property
    def schedulers(self) -> Mapping[str, Scheduler]:
        """The schedulers by device."""
        return self._engines.schedulers

    def find(self, task: TaskName, name: str) -> Entry:
        """The entry called `name`, or the default of `task` if `name` is empty. Raises the errors of `Catalog.find`."""
        return self.catalog.find(task, name)

    @asynccontextmanager
    async def using(
        self, task: TaskName, name: str, stopwatch: Stopwatch | None = None
    ) -> AsyncIterator[Model]:
        """Context manager: the open model for a request; it stays open until the end of the block.

        task, name: as for `find`. stopwatch: gets "queue" while the model is being opened.
        Raises the errors of `find`, and those of opening a model.
        """
        use, model = Use(), None
        while model is None:
            with self._changed:
                entry = self.find(task, name)
                self._uses += 1
                entry.last_use = self._uses
                entry.uses.add(use)
                model = use.model = None if entry.leaving else entry.model
            try:
                if model is None:
                    with (stopwatch or Stopwatch()).during("queue"):
                        # Others may wait for it too, so giving up must not cancel it.
                        await asyncio.shield(asyncio.wrap_future(self._opening(entry)))
                    model = use.model
                if model is not None:
                    model.check()
                    yield model
            finally:
                with self._changed:
                    entry.uses.discard(use)
                    self._changed.notify_all()
                self._engines.close_retired(entry)

    def load(self, path: Path) -> Bundle:
        """Read and check a bundle that is to be served; its signature too, if this server asks for one. Raises BundleError."""
        return bundles_on_disk.load(path, self._trust)

    def add(self, bundle: Bundle) -> None:
        """Serve a bundle, in place of the model of the same name if there is one, which serves until then.

        Takes as long as opening the model. With `lazy` it is only checked, unless the model that it replaces is open.
        Raises BundleError, BackendUnavailable or EngineError if it cannot be served, and Overloaded if there is no room
        for it beside the others; then nothing changes.
        """
        with self._one_at_a_time:
            old = self.catalog.entries.get(bundle.manifest.name)
            entry = Entry(bundle)
            if self._lazy and (old is None or old.model is None):
                self._engines.check(bundle)
            else:
                self._engines.make_room(bundle, self._closable(old))
                entry.opened(self._engines.open(bundle)[0])
            self._swap(entry.name, entry)

    def remove(self, name: str) -> None:
        """Serve the model no longer. Requests that use it finish."""
        with self._one_at_a_time:
            self._swap(name, None)

    def stats(self) -> EnginesStats:
        """The counts so far."""
        return self._engines.stats()

    def close(self) -> None:
        """Cancel the waiting jobs, finish the running batches and close the engines."""
        # Exiting while a library compiles may crash it, but a model may take minutes to open.
        idle = self._one_at_a_time.acquire(timeout=CLOSE_WAIT_S)
        try:
            self._engines.close_all()
        finally:
            if idle:
                self._one_at_a_time.release()

    def _add_first(self, bundle: Bundle, on_warm: Callable[[str], None]) -> None:
        """Add a bundle before the server serves, whatever the estimate of its memory says."""
        self._engines.check(bundle)
        entry = Entry(bundle)
        if not self._lazy:
            if problem := self._engines.over_budget(bundle):
                raise BundleError(f"{problem}; raise it, or serve with --lazy")
            model, reason = self._engines.open(bundle)
            entry.opened(model)
            on_warm(reason)
        self._swap(entry.name, entry)

    def _opening(self, entry: Entry) -> Future[None]:
        """Done when the requests that wait for the entry have their model, or it was replaced before it was open.

        Starts to open it unless that is under way.
        """
        with self._changed:
            if entry.model is not None and not entry.leaving:
                entry.opened(entry.model)
                done: Future[None] = Future()
                done.set_result(None)
                return done
            entry.check(time.monotonic())
            if entry.opening is None:
                entry.opening = in_background(f"open {entry.name}", self._open_lazily, entry)
            return entry.opening

    def _open_lazily(self, entry: Entry) -> None:
        start_s = time.monotonic()
        try:
            with self._one_at_a_time:
                with self._changed:
                    if entry.model is not None:  # it was not closed after all
                        entry.opened(entry.model)
                    if entry.model is not None or entry.retired:
                        return
                bundle = self.load(entry.bundle.path)
                if bundle.version != entry.version:
                    self._take_instead(bundle, entry)
                    return
                self._engines.make_room(bundle, self._closable(entry), waiting=entry)
                model, reason = self._engines.open(bundle)
        except BaseException as error:
            with self._changed:
                entry.opening = None
                if not isinstance(error, (Cancelled, Overloaded)):
                    entry.failed(error, time.monotonic() + RETRY_OPENING_S)
            log.warning("model not opened", model=entry.name, version=entry.version, reason=str(error))
            raise
        with self._changed:
            entry.opened(model)
        log.info(
            "model opened", model=entry.name, reason=reason, seconds=round(time.monotonic() - start_s, 2)
        )
        self._engines.close_retired(entry)

    def _take_instead(self, bundle: Bundle, entry: Entry) -> None:
        """Replace an entry that is not open by what its folder holds now: the listed version is nowhere any more."""
        if bundle.manifest.name != entry.name:
            raise BundleError(
                f"{entry.name}: {bundle.path} now holds {bundle.manifest.name}; reload the models (ganforge reload)"
            )
        self._engines.check(bundle)
        self._swap(entry.name, Entry(bundle))
        log.info("model replaced", model=entry.name, version=bundle.version, before=entry.version)

    def _closable(self, keep: Entry | None) -> Callable[[], list[Entry]]:
        """The entries whose model may be closed for another, as they are at each call: all but `keep`, if lazy."""
        return lambda: [entry for entry in self.catalog.entries.values() if self._lazy and entry is not keep]

    def _swap(self, name: str, entry: Entry | None) -> None:
        """Put `entry` into the catalog under this name, in place of the old one; None: only take the old one out."""
        with self._changed:
            entries = dict(self.catalog.entries)
            old = entries.pop(name, None)
            if entry is not None:
                entries[name] = entry
            self.catalog = Catalog.of(entries, self._named)
            if old is not None:
                old.retired = True
        if old is not None:
            self._engines.close_retired(old)
