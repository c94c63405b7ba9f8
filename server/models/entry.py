"""Model, a warm engine that requests run on, and Entry, a name that requests may ask for.

An entry has a model while it is open. server/models/models.py opens and closes them; its lock guards an entry's changing fields.
"""

from __future__ import annotations

import copy
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError, GanforgeError, NotReady
from runtime.manifest import Manifest
from runtime.scheduler import Scheduler

State = Literal["serving", "loading", "idle", "unavailable"]


@dataclass(frozen=True)
class Model:
    """A model that is open: its warm engine and the scheduler of the engine's device."""

    engine: Engine
    scheduler: Scheduler

    @property
    def manifest(self) -> Manifest:
        """The manifest of its bundle."""
        return self.engine.manifest

    @property
    def name(self) -> str:
        """The name of its bundle, as requests name it."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version of its bundle's content."""
        return self.engine.bundle.version

    @property
    def unavailable(self) -> str | None:
        """Why no device can run it now, though it is open; None if one can."""
        return self.engine.unavailable

    def check(self) -> None:
        """Raises NotReady if no device can run it now."""
        if (reason := self.unavailable) is not None:
            raise NotReady(f"{self.name} is unavailable: {reason}; try again later")


@dataclass(eq=False)
class Use:
    """A request's use of an entry. model: what it runs on, open until the request ends; None while it waits for it."""

    model: Model | None = None


@dataclass(eq=False)
class Entry:
    """One version of a served model.

    model: None while it is not open. uses: of the requests that run on it or wait for it.
    last_use: grows with each use, over all entries. retired: replaced or removed; closed after the last request.
    leaving: to be closed for another model; new requests wait until it is opened again.
    opening: done when the model that is being opened is open. failure: why it could not be opened, until `retry_at_s`
    (on time.monotonic()). precision, backend: of the latest engine; "" before the first.
    """

    bundle: Bundle
    model: Model | None = None
    uses: set[Use] = field(default_factory=set)
    last_use: int = 0
    retired: bool = False
    leaving: bool = False
    opening: Future[None] | None = None
    failure: GanforgeError | None = None
    retry_at_s: float = 0.0
    precision: str = ""
    backend: str = ""

    @property
    def manifest(self) -> Manifest:
        """The manifest of its bundle."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """The name of its bundle, as requests name it."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version of its bundle's content."""
        return self.bundle.version

    @property
    def state(self) -> State:
        """What a request for it would meet: "serving" is open, "idle" is opened by the next request."""
        if self.model is not None and not self.leaving:
            return "serving" if self.model.unavailable is None else "unavailable"
        if self.opening is not None:
            return "loading"
        return "unavailable" if self.failure is not None else "idle"

    @property
    def is_running(self) -> bool:
        """Whether requests run on its model."""
        return any(use.model is not None for use in self.uses)

    def opened(self, model: Model) -> None:
        """Note that it is open, and give the model to the requests that wait for it."""
        self.model, self.opening, self.failure, self.leaving = model, None, None, False
        for use in self.uses:
            use.model = use.model or model
        self.precision, self.backend = model.engine.precision, model.engine.backend

    def failed(self, error: BaseException, retry_at_s: float) -> None:
        """Note that it could not be opened; `check` raises an error that says so until `retry_at_s`."""
        if not isinstance(error, GanforgeError):
            error = EngineError(f"{self.name} could not be opened: {error}")
        self.failure = error
        self.opening, self.retry_at_s = None, retry_at_s

    def check(self, now_s: float) -> None:
        """Raises the error of the latest attempt to open it if that was not long ago."""
        if self.failure is not None and now_s < self.retry_at_s:
            raise copy.copy(self.failure)
