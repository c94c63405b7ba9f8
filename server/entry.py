"""Model, a warm engine that requests run on, and Entry, a name that requests may ask for.

An entry has a model while it is open. server/models.py opens and closes them; its lock guards an entry's changing fields.
"""

from __future__ import annotations

import copy
from concurrent.futures import Future
from dataclasses import dataclass
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
class Entry:
    """One version of a served model.

    model: None while it is not open. users: requests that run on it or wait for it; it is closed only without any.
    last_use: grows with each use, over all entries. retired: replaced or removed; to be closed after its last user.
    opening: its result is the model that is being opened. failure: why it could not be opened, until `retry_at_s`
    (on time.monotonic()). precision, backend: of the latest engine; "" before the first.
    """

    bundle: Bundle
    model: Model | None = None
    users: int = 0
    last_use: int = 0
    retired: bool = False
    opening: Future[Model] | None = None
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
        if self.model is not None:
            return "serving" if self.model.unavailable is None else "unavailable"
        if self.opening is not None:
            return "loading"
        return "unavailable" if self.failure is not None else "idle"

    def opened(self, model: Model) -> None:
        """Note that it is open."""
        self.model, self.opening, self.failure = model, None, None
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
